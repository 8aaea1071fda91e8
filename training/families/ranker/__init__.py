"""Training and evaluation of rankers."""
