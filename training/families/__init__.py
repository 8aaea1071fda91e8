"""The families of models: what is read, trained, evaluated and written."""
