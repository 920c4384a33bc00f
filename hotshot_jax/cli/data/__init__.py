"""Commands on clips for training: building data sets of them, and looking at them."""
