"""From sources to data sets: what is found, looked at and made."""
