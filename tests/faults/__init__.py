"""The fault matrix: everything a provider may do wrong, on every way a request can go, and what the caller sees of it."""
