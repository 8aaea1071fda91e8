"""Training of retrieval models: what two-towers and sessions share, and the two-tower's own."""
