"""`python -m ensemble.report`."""
