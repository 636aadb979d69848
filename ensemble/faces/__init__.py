"""Face detectors, and how a face is cut out."""
