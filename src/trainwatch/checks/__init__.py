"""What `trainwatch.preflight` does: a model, its loss and one batch are tried on copies before the first step."""
