"""From a file to batches of images."""
