"""Scoring on Spark: the same function of Arrow batches, mapped over data frames."""
