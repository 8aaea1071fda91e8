"""What every retrieval model has to beat: plain recommenders fitted on the training rows."""
