"""Candidates, negatives and augmented views, drawn from a batch."""
