"""The demonstration pair of models: where its text comes from and how it is trained."""
