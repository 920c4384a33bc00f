"""`python -m convert SOURCE DEST`; the code is in `hotshot_jax.convert`."""
