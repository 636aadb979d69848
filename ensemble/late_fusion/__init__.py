"""Answers of several models made into one."""
