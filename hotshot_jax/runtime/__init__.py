"""Models in device memory, compiled programs over them, and what a call may ask for."""
