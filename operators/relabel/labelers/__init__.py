"""Batch in, label columns out."""
