"""The settings of a pipeline, which makes lists of several sources, a ranking and rules."""
