"""Files: text written in one step, YAML and JSON with positions, and the data that ships."""
