"""`python -m ensemble.evaluate`."""
