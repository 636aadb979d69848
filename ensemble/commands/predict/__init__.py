"""`python -m ensemble.predict`."""
