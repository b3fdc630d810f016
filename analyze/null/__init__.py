"""A pair of models without differences, made from a real one: what is exclusive there is false."""
