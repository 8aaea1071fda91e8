"""Training of models of sessions."""
