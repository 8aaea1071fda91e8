"""Pipelines of trained models: candidates, how they are joined and ranked, the rules of lists."""
