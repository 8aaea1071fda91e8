"""Parts that more than one model uses."""
