"""One module per form of data; each registers itself when it is imported."""
