"""Batch jobs around the same scoring functions."""
