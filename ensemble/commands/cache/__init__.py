"""`python -m ensemble.cache`."""
