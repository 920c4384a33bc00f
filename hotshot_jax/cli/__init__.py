"""Command lines: flags and printing only."""
