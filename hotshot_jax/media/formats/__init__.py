"""File formats of clips and pictures, one a file."""
