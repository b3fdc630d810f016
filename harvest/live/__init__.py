"""Rows for training without a store."""
