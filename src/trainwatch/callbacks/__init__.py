"""Thin translators from a training loop to the monitor: no rule and no arithmetic in here."""
