"""`python -m ensemble.compare`."""
