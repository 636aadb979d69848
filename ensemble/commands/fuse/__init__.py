"""`python -m ensemble.fuse`."""
