"""Training: phases, targets, augmentation, callbacks, distribution."""
