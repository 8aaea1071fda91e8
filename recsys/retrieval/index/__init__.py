"""Item indexes: one file a library, built, measured, saved and opened in the same way."""
