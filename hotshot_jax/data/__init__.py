"""Training data: sources, aspect-ratio buckets and the loader. Inference never imports this."""
