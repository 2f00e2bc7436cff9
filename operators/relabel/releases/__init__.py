"""Releases: receipts, segments, versions, and reading a release back."""
