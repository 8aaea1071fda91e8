"""Splits, histories, sessions, evaluation queries, and the cache of all that."""
