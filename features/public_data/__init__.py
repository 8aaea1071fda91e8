"""Public data sets, from the files that their authors offer, split as papers do."""
