"""Models to measure, made of formulas and shapes."""
