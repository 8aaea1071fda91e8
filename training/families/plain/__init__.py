"""Plain recommenders fitted on the training rows: what every model has to beat."""
