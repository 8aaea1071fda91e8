"""A pipeline over the items of a catalogue: from candidates to a list that follows rules."""
