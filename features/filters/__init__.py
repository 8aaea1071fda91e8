"""What may be recommended: predicates over columns of the items, and lists of ids."""
