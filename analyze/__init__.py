"""One sweep over a store with a trained dictionary; norms, exclusive features, and the report.

Shapes: B batch rows, F features, L document labels, N active entries of a batch.
"""
