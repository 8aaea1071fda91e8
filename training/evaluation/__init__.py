"""Metrics of rankers over queries: intervals, slices, collapse."""
