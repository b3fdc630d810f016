"""For others to read: caches for Delphi, tables for notebooks, explanations by a language model."""
