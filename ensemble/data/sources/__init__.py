"""Dataset layouts, one file each."""
