"""Tensors in files: reading, writing, their names and layouts."""
