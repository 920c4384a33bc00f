"""`python -m convert`: flags, and what it prints."""
