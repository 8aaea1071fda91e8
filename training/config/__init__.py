"""The configuration of an experiment: one strict tree."""
