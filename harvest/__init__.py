"""Corpus -> tokens -> alignment -> forward passes -> store. Knows nothing of dictionaries."""
