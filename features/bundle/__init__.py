"""A trained model on disk: what training writes and serving reads, described once."""
