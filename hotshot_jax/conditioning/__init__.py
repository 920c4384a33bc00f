"""What the models are conditioned on: text and control frames."""
