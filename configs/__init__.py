"""Names and typed settings, which everything else stands on. Imports no Keras."""
