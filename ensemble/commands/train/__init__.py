"""`python -m ensemble.train`."""
