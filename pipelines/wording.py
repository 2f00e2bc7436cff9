"""Wording: numbers and names as people read them, in pictures, reports and messages."""


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction >= 0.01 or fraction == 0 else "< 1 %"


def short_name(name: str) -> str:
    """The first of a class's synonyms."""
    return name.split(",", maxsplit=1)[0].strip()


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
