"""The loop: steps, checkpoints, numbers, validation."""
