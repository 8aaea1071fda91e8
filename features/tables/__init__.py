"""Files in, checked tables out; every dropped row is counted."""
