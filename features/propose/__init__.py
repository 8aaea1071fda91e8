"""`recsys init` and `recsys check`: a first configuration, and what is wrong with the data."""
