"""The HTTP edge: one module per API family."""
