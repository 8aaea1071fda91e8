"""MLflow, the journal behind it, and progress on the terminal."""
