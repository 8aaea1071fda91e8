"""Training of session models."""
