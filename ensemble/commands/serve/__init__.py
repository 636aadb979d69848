"""`python -m ensemble.serve`."""
