"""Training of two-towers."""
