"""The study of the embedding's multiplicities."""
