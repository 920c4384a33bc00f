"""Clips made from settings: which model, what to make, how to run. Nothing here prints."""
