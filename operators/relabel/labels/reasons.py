"""Reasons of labels: the codes of `relabel.reasons`, which lie on the ground because sources raise them too."""

from ..reasons import Reason, Status

__all__ = ["Reason", "Status"]
