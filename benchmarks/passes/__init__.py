"""Fewer passes through the UNet: what they save, what they cost, which steps to keep."""
