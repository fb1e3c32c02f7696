"""What was seen: load points, and the append-only files that keep them."""
