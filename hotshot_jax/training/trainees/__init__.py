"""What trains, and how it is loaded and exported."""
