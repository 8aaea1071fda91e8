"""Built-in data whose preference function is known."""
