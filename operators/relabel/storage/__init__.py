"""Storage: the object stores that hold label releases, and how URLs become file systems."""
