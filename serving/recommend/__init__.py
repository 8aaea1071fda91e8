"""Requests in, lists and probabilities out."""
