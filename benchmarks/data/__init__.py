"""Benchmarks of training data."""
