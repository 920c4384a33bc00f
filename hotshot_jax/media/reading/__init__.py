"""Clips and pictures in."""
