"""`hotshot-jax-serve`: flags, and what they come to."""
