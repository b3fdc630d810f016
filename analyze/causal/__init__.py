"""The language models again, with their activations edited: what the dictionary means to them."""
