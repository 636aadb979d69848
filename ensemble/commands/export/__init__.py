"""`python -m ensemble.export`."""
