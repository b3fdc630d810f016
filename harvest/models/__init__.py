"""Language models: loading, finding places in them, reading those in one pass."""
