"""Backbone families, one file each."""
