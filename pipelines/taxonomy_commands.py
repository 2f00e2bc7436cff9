"""Taxonomy command: `relabel taxonomy RECIPE`, from texts to a table of categories that `pseudo_label` labels by."""

import argparse

from .terminal import Add, add_overrides, emit, say


def declare(add: Add) -> None:
    sub = add("taxonomy", taxonomy_command, "let a language model find the categories of a data set's texts")
    sub.add_argument("recipe", help="a YAML file, or the name of a shipped taxonomy recipe (topics)")
    add_overrides(sub, "--set", "overrides", "set one field of the recipe, e.g. build.categories=10 (repeatable)")
    sub.add_argument("--refit", action="store_true", help="draw the sample anew, from today's rows")


def taxonomy_command(options: argparse.Namespace) -> int:
    from .taxonomy import induce, load_taxonomy

    recipe = load_taxonomy(options.recipe, options.overrides)
    induced = induce(recipe, options.refit, (lambda line: None) if options.json else say)
    taxonomy, built = induced.taxonomy, induced.built
    if options.json:
        emit({"path": induced.path, "fresh": induced.fresh, **taxonomy.to_json(), "digest": taxonomy.digest,
              **built.to_json()})  # fmt: skip
        return 0
    for each in taxonomy.categories:
        say(f"  {each.id:<6} {each.name}" + (f": {each.description}" if each.description else ""))
    for old, (before, after) in (induced.begun.renamed(taxonomy) if induced.begun else {}).items():
        say(f"renamed   {old}: {before!r} is now {after!r}")
    for gone, went in taxonomy.moved.items():
        say(f"gone      {gone}" + (f", now part of {went}" if went else ""))
    lost = sum(bool(entry["kept"]) for entry in built.trace)
    say(
        f"coverage  {'not measured' if built.coverage is None else f'{built.coverage:.1%} of the validation texts'}",
        f"replies   {len(built.trace)} tables asked for"
        + (f", {lost} times none came and the last one stayed" * bool(lost)),
        f"taxonomy  {induced.path}" + ("" if induced.fresh else " (nothing changed)"),
    )
    return 0
