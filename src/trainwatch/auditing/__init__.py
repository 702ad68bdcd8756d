"""The data, before the first step."""
