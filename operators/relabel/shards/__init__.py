"""Shards: where samples come from, read to their end or not at all."""
