"""Face detection and crops."""
