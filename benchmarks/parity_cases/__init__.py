"""The kinds of cases that parity data are made of, one module each."""
