"""What a trained ranker looks at."""
