"""Terminal: what commands print (text for people, JSON for programs) and how they declare their options."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from relabel.digests import Json
from relabel.errors import Refused, UsageError

Add = Callable[..., argparse.ArgumentParser]
"""`add(name, command, text)` declares a command and returns its parser, for its arguments."""


CONTROLS = {
    code: f"\\u{code:04x}" for code in (*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F,
    *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}  # fmt: skip
"""Of C0 all but tab and line break, C1, and what changes the direction of text."""


def visible(text: str) -> str:
    """Text whose control characters are seen and do nothing: a caption could clear a screen, or turn a line around."""
    return text.translate(CONTROLS)


def say(*lines: str) -> None:
    print(visible("\n".join(lines)))


def emit(value: Json) -> None:
    print(json.dumps(value, indent=2, default=str))


def size(num_bytes: float) -> str:
    """`3.5 kB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError


def table(rows: Iterable[Sequence[Any]]) -> None:
    say(*aligned(rows))


def aligned(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Left-aligned columns, a line per row."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in lines]


def refused(error: Refused) -> int:
    """What a check that was printed already says on standard error; standard output stays one JSON document."""
    print(visible(f"relabel: {error}"), file=sys.stderr)
    return error.exit_code


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return value


def add_overrides(sub: argparse.ArgumentParser, flag: str, dest: str, text: str) -> None:
    sub.add_argument(flag, action="append", default=[], metavar="A.B=VALUE", dest=dest, help=text)


def add_if_busy(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--if-busy",
        default="take-over",
        choices=("take-over", "wait", "refuse"),
        help="where another run holds the store: take over if its lease has expired, else exit 5 (default); "
        "wait until it is released or expires; refuse even if it has expired",
    )


def add_store(sub: argparse.ArgumentParser) -> None:
    """The store that a command works on."""
    sub.add_argument("store", help="the store's URL or folder")
    sub.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an fsspec option such as endpoint_url (repeatable)",
    )


def storage_options(options: argparse.Namespace) -> dict[str, str]:
    pairs = {}
    for option in options.storage_option:
        name, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--storage-option expects NAME=VALUE, got {option!r}.")
        pairs[name] = value
    return pairs
