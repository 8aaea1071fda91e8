"""Attention maps and explanations of a model's answers."""
