"""What can be told of clips by their pixels alone: movement, loops, flicker, colour, likeness."""
