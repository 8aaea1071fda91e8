"""Tensors in, tensors out: schema, batches, embeddings, models, losses, metrics, retrieval."""
