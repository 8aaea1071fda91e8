"""The fitted encoder: checked columns to tensors."""
