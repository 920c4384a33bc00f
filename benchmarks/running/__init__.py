"""What benchmarks share: timing, and results that a stopped run goes on with."""
