"""The unified embedding: one table that all features share."""
