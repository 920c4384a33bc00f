"""Checkpoints of every layout: opening, checking, loading, converting."""
