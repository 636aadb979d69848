"""`python -m ensemble.search`."""
