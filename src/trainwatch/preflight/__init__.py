"""Five seconds before the first step: a model, its loss and one batch."""
