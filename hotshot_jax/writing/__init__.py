"""Files and folders that appear whole or not at all, in places where nothing else is lost."""
