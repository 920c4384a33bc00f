"""`infer.py`: flags, checks and what it prints."""
