"""Families: judges that err alike (one maker's models, one model's prompts) and so have one vote together."""

from collections.abc import Mapping, Sequence


def family_members(judges: Sequence[str], families: Mapping[str, str]) -> list[list[str]]:
    """The judges of each family, in the order in which families are first named; who is in none is one alone."""
    found: dict[tuple[bool, str], list[str]] = {}
    for judge in judges:
        found.setdefault((judge in families, families.get(judge, judge)), []).append(judge)
    return list(found.values())


def check_families(judges: Sequence[str], families: Mapping[str, str]) -> None:
    """Raises ValueError, for pydantic to tell, where a judge is named twice, or in `families` and nowhere else."""
    if unknown := sorted(set(families) - set(judges)):
        raise ValueError(f"families names {', '.join(unknown)}, which are no judges; these are {', '.join(judges)}")
    if len(set(judges)) < len(judges):
        raise ValueError(f"every judge is named once, got {', '.join(judges)}")
