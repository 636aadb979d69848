"""`python -m ensemble.extract`."""
