"""What serving does with a model, by what the model answers with."""
