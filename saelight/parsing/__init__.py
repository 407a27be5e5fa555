"""From text to objects: YAML, class paths, and what is wrong with them in one line."""
