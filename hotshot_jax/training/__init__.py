"""Fine-tuning: loss, optimiser, checkpoints and the loop around them."""
