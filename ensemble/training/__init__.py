"""Phases of epochs on features and on images."""
