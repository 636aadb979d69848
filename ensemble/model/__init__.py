"""The composed model: extractor, fusion, classifier, and its files."""
