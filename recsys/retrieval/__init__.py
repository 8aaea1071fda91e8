"""Exact top-k and the protocol that every index answers."""
