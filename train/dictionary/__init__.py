"""What is trained: the crosscoder, its codes, partition and files."""
