"""What everything stands on: errors, strict models, whole files, compiled code."""
