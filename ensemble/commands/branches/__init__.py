"""`python -m ensemble.branches`."""
