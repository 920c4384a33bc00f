"""Files that others made: opened, read and parsed within limits. Every reader goes through here."""
