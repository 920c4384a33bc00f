"""Cases that run whole pipelines."""
