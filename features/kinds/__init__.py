"""The kinds of features."""
