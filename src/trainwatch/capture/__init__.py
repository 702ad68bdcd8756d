"""What is measured at every step: losses, gradients, classes, validation passes, wiring. Never waits for the device."""
