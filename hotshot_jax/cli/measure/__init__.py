"""The command that measures clips."""
