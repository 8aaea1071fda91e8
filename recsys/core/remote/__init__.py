"""Files that are not on this machine: their addresses, the stores that keep them, what they say."""
