"""One ANN library a file, behind the Index protocol."""
