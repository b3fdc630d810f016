"""Two dictionaries of one store: which findings of the one does the other repeat."""
