"""Dictionaries, recipes, the loop, checkpoints. Knows nothing of language models or text.

Shapes throughout this package: B batch rows, D width of a hookpoint, F features of the
dictionary, V features that a hookpoint's model sees, H hookpoints, N active entries (codes).
"""
