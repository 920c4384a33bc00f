"""Reading and writing of clips and pictures, and the sizes that they come in."""
