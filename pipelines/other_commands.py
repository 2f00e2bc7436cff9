"""Other commands: the operators and the schema, a labeler of one's own, the demo."""

import argparse
import sys
from pathlib import Path

from .terminal import Add, emit, say


def declare(add: Add) -> None:
    add("operators", operators_command, "list the registered operators and their parameters")
    add("schema", schema_command, "print the recipe's JSON schema, for editors")
    new = add("new", new_command, "write a package for an operator of your own, with a test")
    new.add_argument("kind", choices=("labeler",))
    new.add_argument("name", metavar="NAME", help="lower-case letters, digits and _")
    new.add_argument("--out", default=".", metavar="FOLDER", help="where the package's folder goes (default: here)")
    demo = add("demo", demo_command, "label real photographs with a real model, and show the result")
    captions = add("demo-captions", demo_captions_command, "tune a captioner on scenes, and recaption others with it")
    text = add("demo-text", demo_text_command, "label articles with a small language model, and audit its labels")
    for sub, folder in ((demo, "demo"), (captions, "demo-captions"), (text, "demo-text")):
        sub.add_argument("--out", default=folder, metavar="FOLDER", help="where everything goes (default: %(default)s)")


def operators_command(options: argparse.Namespace) -> int:
    from relabel.labelers import registry

    known = registry.labelers()
    if options.json:
        emit(
            {
                name: {"version": cls.version, "parameters": cls.Parameters.model_json_schema()}
                for name, cls in known.items()
            }
        )
        return 0
    for name, cls in known.items():
        say(f"{name} (version {cls.version}): {(cls.__doc__ or '').strip().partition(chr(10))[0]}")
        for field, info in cls.Parameters.model_fields.items():
            default = "required" if info.is_required() else f"default {info.default!r}"
            say(f"    {field}: {(info.description or '').partition(chr(10))[0]} ({default})")
    return 0


def schema_command(options: argparse.Namespace) -> int:
    from .loading import schema

    emit(schema())
    return 0


def new_command(options: argparse.Namespace) -> int:
    from .scaffold import new_labeler

    files = new_labeler(options.name, Path(options.out))
    if options.json:
        emit([str(path) for path in files])
    else:
        say(
            f"wrote {', '.join(path.name for path in files)} to {files[0].parent}",
            f"test it:      cd {files[0].parent} && python -m pytest",
            f"in a recipe:  plugins: [{files[0]}]",
        )
    return 0


def demo_command(options: argparse.Namespace) -> int:
    from .demo import demo

    return demo(options.out, sys.stdout if not options.json else sys.stderr)


def demo_captions_command(options: argparse.Namespace) -> int:
    from .demo_captions import demo_captions

    return demo_captions(options.out, sys.stdout if not options.json else sys.stderr)


def demo_text_command(options: argparse.Namespace) -> int:
    from .demo_text import demo_text

    return demo_text(options.out, sys.stdout if not options.json else sys.stderr)
