"""The ensemble for other runtimes, written, verified and run."""
