"""`python -m ensemble.prepare`."""
