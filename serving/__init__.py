"""Jobs that score, export and register."""
