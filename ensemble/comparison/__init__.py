"""Runs and trials side by side, and whether a difference is more than chance."""
