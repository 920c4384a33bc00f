"""Several data sets as one: places, shares, captions as they are drawn."""
