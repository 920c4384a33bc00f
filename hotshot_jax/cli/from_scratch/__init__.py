"""`python -m hotshot_jax.from_scratch`: flags, and what it prints."""
