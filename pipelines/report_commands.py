"""Report commands: `report`: one page about one release."""

import argparse
from pathlib import Path

from .store_commands import open_store
from .terminal import Add, add_store, emit, positive, say, size

DEFAULT_SAMPLES = 24


def declare(add: Add) -> None:
    sub = add("report", report_command, "write one self-contained HTML page about a release")
    add_store(sub)
    sub.add_argument("--release", default="latest", metavar="R", help="a number, tag, `latest`, `candidate:RUN`")
    sub.add_argument(
        "--against", default="previous", metavar="R", help="the release to compare with (default: the one before)"
    )
    sub.add_argument("-o", "--out", required=True, metavar="HTML", help="the file that is written")
    sub.add_argument(
        "--samples", type=positive, default=DEFAULT_SAMPLES, metavar="N", help="in the galleries (default: %(default)s)"
    )


def report_command(options: argparse.Namespace) -> int:
    from .report import report, write
    from .report_facts import name_of_store

    store, out = open_store(options), Path(options.out)
    found = report(store, options.release, options.against, options.samples)
    write(found, out)
    written = out.stat().st_size
    if options.json:
        fields = {"out": str(out), "release": found.release, "bytes": written, "samples": found.samples}
        emit({**fields, "notes": list(found.notes)})
    else:
        named = f"release {found.release} of {name_of_store(store.url)}"
        say(
            f"{out}: {named}, {found.samples} samples, {size(float(written))}",
            *(f"  note: {note}" for note in found.notes),
        )
    return 0
