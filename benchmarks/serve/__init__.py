"""A server under load: clips a second of several clients, and memory over minutes of mixed load."""
