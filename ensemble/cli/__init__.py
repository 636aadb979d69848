"""Flags from the schema, checks and console output."""
