"""Nightly commands: do the night of a date, and say what became of the last nights."""

import argparse
import itertools
import json
import sys
from pathlib import Path

import relabel
from relabel.digests import Json
from relabel.errors import RelabelError, UsageError
from relabel.releases.nights import attempts

from .terminal import Add, add_overrides, add_store, emit, positive, say, storage_options, table, visible

WIDTH = 100
"""Characters of a night's sentence in a table."""


def declare(add: Add) -> None:
    text = "do the night of a date: discover, label until a deadline, gate, publish or leave alone, tell, clean up"
    sub = add("nightly", nightly_command, text, with_json=False)
    sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe; its `nightly` section says the rest")
    add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
    sub.add_argument("--date", metavar="YYYY-MM-DD", help="the night's date (default: today in nightly.time_zone)")
    sub.add_argument("--deadline", metavar="TIME", help="stop then, cleanly: 4h, 06:00 (default: nightly.deadline)")
    sub.add_argument("--address", help="a running Ray cluster (default: a local one for this run)")
    sub.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the result to a file as JSON; -: standard output"
    )
    sub = add("nights", nights_command, "say what became of the last nights of a store")
    add_store(sub)
    sub.add_argument("--last", type=positive, default=14, metavar="N", help="attempts (default: %(default)s)")


def nightly_command(options: argparse.Namespace) -> int:
    from .nightly import nightly

    if options.json not in (None, "-") and not Path(options.json).parent.is_dir():
        raise UsageError(f"--json: there is no folder {str(Path(options.json).parent)!r} to write into.")
    try:
        night = nightly(
            options.recipe, options.overrides, date=options.date, deadline=options.deadline, address=options.address
        )
    except RelabelError as error:  # nothing was begun
        write({"state": "wrong", "exit_code": error.exit_code, "why": str(error)}, options.json)
        options.json = None
        raise
    write(night.to_json(), options.json)
    print(visible(night.markdown()), file=sys.stderr if options.json == "-" else sys.stdout, end="", flush=True)
    return night.exit_code


def write(result: Json, place: str | None) -> None:
    if place == "-":
        emit(result)
    elif place is not None:
        try:
            Path(place).write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
        except OSError as error:  # the night was what it was
            print(f"relabel: the result could not be written to {place}: {error}", file=sys.stderr)


def nights_command(options: argparse.Namespace) -> int:
    store = relabel.open(options.store, **storage_options(options)).objects
    found = list(itertools.islice(attempts(store), options.last))
    if options.json:
        emit([each.to_json() for each in found])
    elif not found:
        say("no night yet: `relabel nightly RECIPE` does one")
    else:
        rows = [
            (each.date, each.number, each.state, each.fields.get("exit_code", ""), each.why.splitlines()[0][:WIDTH])
            for each in found
        ]
        table([("date", "attempt", "state", "exit", "why"), *rows])
    return 0
