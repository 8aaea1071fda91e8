"""Tables of events or facts with keys and times, and numbers over what they hold before a row."""
