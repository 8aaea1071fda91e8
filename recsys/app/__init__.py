"""The command line and the Python API: thin, they import the rest when they need it."""
