"""Documents: from files, the hub and standard input, mixed, and cut into blocks."""
