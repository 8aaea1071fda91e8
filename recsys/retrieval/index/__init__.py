"""Item indexes: one file a library, all of them built, measured, saved and opened alike."""
