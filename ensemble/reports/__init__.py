"""Runs as one page: figures, charts, pictures and records in a single HTML file."""
