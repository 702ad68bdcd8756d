"""What a run looks like in TensorBoard. Loading this package loads neither torch nor tensorboard."""
