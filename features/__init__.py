"""Raw tables in, typed batches out."""
