"""Measures of a record without thresholds: curves, noise, paired changes, profiles over depth."""
