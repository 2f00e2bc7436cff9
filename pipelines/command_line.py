"""The command line: `relabel COMMAND`, or `python -m pipelines COMMAND` in a checkout."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from relabel.errors import RelabelError

from . import commands

EXIT_CODES = """exit codes:
  0  done, also when there was nothing to do
  1  something failed that is none of the below, or the run was interrupted; running again goes on
  2  the command line or the recipe is wrong
  3  a check refused: contract, model surgery, verify, doctor
  4  too many dead letters
  5  another run owns the store or committed first
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
    print(f"relabel: {error}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="relabel",
        description="Relabel data sets at scale: recipes in, immutable label releases out.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name, help=text, description=text, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.add_argument("--json", action="store_true", help="machine-readable output on standard output")
        sub.set_defaults(command=command)
        return sub

    for name, command, text in (
        ("plan", commands.plan_command, "say what a run would do and why; writes nothing"),
        ("run", commands.run_command, "label what is not labelled yet and publish a release"),
    ):
        sub = add(name, command, text)
        sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
        add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
        sub.add_argument("--limit", type=positive, metavar="N", help="label at most N shards this time")
        sub.add_argument(
            "--check-content", action="store_true", help="read finished shards again and compare their digests"
        )
        if name == "run":
            sub.add_argument("--address", help="a running Ray cluster (default: a local one for this run)")
    add_trial_commands(add)
    add_store_commands(add)
    add("operators", commands.operators_command, "list the registered operators and their parameters")
    add("schema", commands.schema_command, "print the recipe's JSON schema, for editors")
    new = add("new", commands.new_command, "write a package for an operator of your own, with a test")
    new.add_argument("kind", choices=("labeler",))
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and _")
    new.add_argument("--out", default=".", metavar="FOLDER", help="where the package's folder goes (default: here)")
    demo = add("demo", commands.demo_command, "label real photographs with a real model, and show the result")
    demo.add_argument("--out", default="demo", metavar="FOLDER", help="where everything goes (default: %(default)s)")
    return top


def add_trial_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    for name, command, text in (
        ("try", commands.try_command, "label a few samples here, without Ray and store, and draw them"),
        ("compare", commands.compare_command, "label a few samples with two recipes, and draw both side by side"),
    ):
        sub = add(name, command, text)
        sub.add_argument("recipe", help="a YAML file, or the name of a shipped recipe")
        if name == "compare":
            sub.add_argument("other", help="the second recipe; the samples are those of the first")
        add_overrides(sub, "--set", "overrides", "override one field of the recipe (repeatable)")
        if name == "compare":
            add_overrides(sub, "--set-b", "other_overrides", "override one field of the second recipe (repeatable)")
        sub.add_argument("--limit", type=positive, default=20, metavar="N", help="samples (default: %(default)s)")
        sub.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="CONDITION",
            dest="conditions",
            help="only samples like these: 'json.width>=256', 'cls=471' (repeatable)",
        )
        sub.add_argument("--out", metavar="PNG", help=f"the picture (default: RECIPE'S NAME-{name}.png)")


def add_overrides(sub: argparse.ArgumentParser, flag: str, dest: str, text: str) -> None:
    sub.add_argument(flag, action="append", default=[], metavar="A.B=VALUE", dest=dest, help=text)


def add_store_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    for name, command, text in (
        ("log", commands.log_command, "list a store's releases"),
        ("show", commands.show_command, "describe one release"),
        ("verify", commands.verify_command, "check that a release is whole"),
        ("doctor", commands.doctor_command, "probe whether a store keeps the promises that commits need"),
        ("preview", commands.preview_command, "draw some samples with their labels"),
    ):
        sub = add(name, command, text)
        sub.add_argument("store", help="the store's URL or folder")
        sub.add_argument(
            "--storage-option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an fsspec option such as endpoint_url (repeatable)",
        )
        if name in ("show", "verify", "preview"):
            sub.add_argument("--release", default="latest", metavar="R", help="a number, a tag or `latest`")
        if name == "verify":
            sub.add_argument(
                "--level",
                default="default",
                choices=("quick", "default", "full"),
                help="quick: listings and manifests; default: and file footers; full: every byte",
            )
        if name == "preview":
            sub.add_argument("--out", required=True, metavar="PNG")
            sub.add_argument("--samples", type=positive, default=6, metavar="N")


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
