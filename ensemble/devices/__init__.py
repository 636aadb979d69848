"""What a training computes on: one device, several, or several machines."""
