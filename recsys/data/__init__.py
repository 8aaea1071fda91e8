"""The schema, and batches of tensors."""
