"""Testing: the kit for people who write operators and stores: the rules of a labeler, real servers, faulty stores."""

from .check import RuleBroken, check_labeler
from .law import check_statistic

__all__ = ["RuleBroken", "check_labeler", "check_statistic"]
