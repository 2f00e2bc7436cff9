"""Exports: a release in formats that need no relabel to be read: WebDataset, Hugging Face, Delta, JSON lines."""
