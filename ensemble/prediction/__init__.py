"""From a photo, a folder or a video to answers."""
