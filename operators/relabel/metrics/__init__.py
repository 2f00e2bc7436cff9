"""Metrics: labels in, numbers about them out. A metric is a labeler that reads the labels of earlier steps."""
