"""Files of other tools, read and written as they are."""
