"""Jobs that train, evaluate and report."""
