"""What the small model was made with, and what it is measured with."""
