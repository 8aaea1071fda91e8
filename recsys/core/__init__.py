"""The foundations: errors, strict models, whole files, compiled code."""
