"""The command line: `relabel COMMAND`, or `python -m pipelines COMMAND` in a checkout."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from relabel.errors import RelabelError

from . import (
    approval_commands,
    cost_commands,
    dead_commands,
    export_commands,
    lease_commands,
    logs,
    nightly_commands,
    other_commands,
    release_commands,
    report_commands,
    run_commands,
    store_commands,
    submit_commands,
    taxonomy_commands,
    tune_commands,
)
from .terminal import visible

EXIT_CODES = """exit codes:
  0  done, also when there was nothing to do
  1  something failed that is none of the below, or the run was interrupted; running again goes on
  2  the command line or the recipe is wrong
  3  a check refused: the gate, contract, model surgery, verify, doctor, replay of other labels, a partial release
  4  too many dead letters (`relabel dead STORE --open` lists them), or the run's budget is spent
  5  another run owns the store or committed first
  6  a release passed the gate and waits for approval (`relabel candidates STORE`)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Errors are one sentence, unless RELABEL_DEBUG is set."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except RelabelError as error:
        if os.environ.get("RELABEL_DEBUG"):
            traceback.print_exc()
        report(options, error)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\ninterrupted. Nothing is lost: finished shards and parts are kept; run the same command to go on.",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough; a second flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def report(options: argparse.Namespace, error: RelabelError) -> None:
    if options.json:
        print(json.dumps({"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}))
    fields = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
    if logs.form() == "json":
        logs.tell("error", [], fields)
    else:
        print(visible(f"relabel: {error}"), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="relabel",
        description="Relabel data sets at scale: recipes in, immutable label releases out.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, with_json: bool = True
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name, help=text, description=text, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if with_json:
            sub.add_argument("--json", action="store_true", help="machine-readable output on standard output")
        sub.set_defaults(command=command)
        return sub

    for room in (
        run_commands,
        store_commands,
        dead_commands,
        release_commands,
        approval_commands,
        report_commands,
        export_commands,
        lease_commands,
        cost_commands,
        nightly_commands,
        tune_commands,
        taxonomy_commands,
        submit_commands,
        other_commands,
    ):
        room.declare(add)
    return top


if __name__ == "__main__":
    sys.exit(main())
