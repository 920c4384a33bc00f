"""Leaf layers and attention, and where activations lie on a mesh."""
