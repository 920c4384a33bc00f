"""The device mesh and how parameters lie on it."""
