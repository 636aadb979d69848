"""The run folder and what it records."""
