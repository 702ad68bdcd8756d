"""Experiments on a copy of the live model, now and then, on held batches and within the budget."""
