"""Models that count and solve, and train nothing: what strong learned models are measured by."""
