"""Dictionaries of other libraries: read into a Crosscoder, and written out again."""
