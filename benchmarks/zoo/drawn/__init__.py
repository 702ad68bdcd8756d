"""Runs that nobody wrote: recipes drawn at random and settled by search, and faults planted into them."""
