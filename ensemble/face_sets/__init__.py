"""Raw photos made into a set of faces."""
