"""Metrics: functions of arrays of ranks, scores and vectors."""
