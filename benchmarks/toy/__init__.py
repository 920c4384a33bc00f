"""What the small model is measured with."""
