"""Stored features of frozen branches."""
