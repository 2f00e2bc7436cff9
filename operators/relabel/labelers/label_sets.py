"""Label sets: the closed list of classes that a text may get, from a recipe or a taxonomy's file, and exact matching.

An answer means a class only where it is its name, after NFKC, with white space collapsed and case folded. Nothing is
guessed: no substrings ("business" in "no business at all"), no nearest name.
"""

import dataclasses
import functools
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..digests import Json
from ..errors import UsageError
from ..labels.taxonomy import parse_taxonomy
from .engines.protocol import SEPARATOR
from .prompts import as_line

Given = tuple[str, ...] | dict[str, str] | str
"""Names, names with descriptions, or the path of a taxonomy."""
MAX_NAME = 200
MARKS = frozenset("<>|{}`\\")
"""What chat templates, tokenizers and Jinja2 write their own marks with; a model may have written the taxonomy."""
MAX_CLASSES = 10_000
MAX_FILE_BYTES = 64 << 20


def normal(text: str) -> str:
    """What of an answer is compared: NFKC, white space collapsed and taken off the ends, case folded."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes in order; class `i` is called `names[i]`."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    """Empty where there is none."""
    ids: tuple[str, ...]
    """That a taxonomy keeps when a class is renamed; else the names."""

    def __post_init__(self) -> None:
        """Raises UsageError where two classes could be taken for one another, or a name is no name."""
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise UsageError(f"expected 2 to {MAX_CLASSES} labels, got {len(self.names)}.")
        for name in self.names:
            if not name.isprintable() or name != " ".join(name.split()) or not 1 <= len(name) <= MAX_NAME:
                raise UsageError(
                    f"a label is 1 to {MAX_NAME} printable characters in one line without spaces at its ends, got "
                    f"{name[:MAX_NAME]!r}."
                )
            if MARKS & {*name}:
                raise UsageError(f"a label has none of {' '.join(sorted(MARKS))} in it, got {name!r}. Rename it.")
        if len(self._numbers) < len(self.names):
            twice = next(name for number, name in enumerate(self.names) if self._numbers[normal(name)] != number)
            raise UsageError(f"the label {twice!r} is there twice (case and white space do not count).")
        if len(set(self.ids)) < len(self.ids):
            raise UsageError("every class of a taxonomy needs an `id` of its own; two have the same.")

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {normal(name): number for number, name in enumerate(self.names)}

    def match(self, answer: str) -> int | None:
        """The class whose name this is; None where it is none's."""
        return self._numbers.get(normal(answer))

    def listed(self) -> str:
        """`sports, business, technology`."""
        return ", ".join(self.names)

    def defined(self) -> str:
        """A line per class, with what it means where that is said."""
        return "\n".join(
            f"- {name}: {as_line(meaning)}" if meaning else f"- {name}"
            for name, meaning in zip(self.names, self.descriptions, strict=True)
        )

    def lettered(self) -> str:
        """`A. sports`, a line each."""
        return "\n".join(f"{chr(ord('A') + number)}. {name}" for number, name in enumerate(self.names))

    def require_separable(self) -> None:
        """Raises UsageError where a name holds what stands between several."""
        if bad := next((name for name in self.names if SEPARATOR in name), None):
            raise UsageError(f"where a text may have several labels none may hold {SEPARATOR!r}, got {bad!r}.")

    def to_json(self) -> list[Json]:
        return [
            {"id": key, "name": name, "description": meaning}
            for key, name, meaning in zip(self.ids, self.names, self.descriptions, strict=True)
        ]


def from_classes(classes: Sequence[Json], where: str = "the taxonomy") -> LabelSet:
    """Of `[{id, name, description}, ...]`; id and description may be missing. Raises UsageError."""
    entries = [each for each in classes if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
    if len(entries) < len(classes):
        raise UsageError(f"{where}: every class is an object with a `name`, and perhaps `id` and `description`.")
    return LabelSet(
        tuple(str(each["name"]) for each in entries),
        tuple(" ".join(str(each.get("description") or "").split()) for each in entries),
        tuple(str(each.get("id", each["name"])) for each in entries),
    )


def label_set(given: Given) -> LabelSet:
    """What a recipe says of labels; a path is read. Raises UsageError."""
    if isinstance(given, str):
        return read_taxonomy(given)
    if isinstance(given, dict):
        return from_classes([{"name": name, "description": meaning} for name, meaning in given.items()])
    return from_classes([{"name": name} for name in given])


def read_taxonomy(path: str) -> LabelSet:
    """A taxonomy's file (see `labels.taxonomy`). Raises UsageError."""
    file = Path(path).expanduser()
    wanted = f"expected a taxonomy's file, got {path!r}"
    if not file.is_file():
        raise UsageError(f"{wanted}, which is no file on this machine. Or give `labels: [a, b, ...]`.")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{wanted}, which has more than {MAX_FILE_BYTES} bytes.")
    return from_classes([each.to_json() for each in parse_taxonomy(file.read_bytes(), path).categories], path)
