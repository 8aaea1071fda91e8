"""Click logs that are larger than memory."""
