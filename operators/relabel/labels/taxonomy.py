"""Taxonomies: flat sets of named categories whose ids stay, whatever the categories are called later.

A taxonomy is a small JSON file, made by a program or by hand. Its digest is that of ids, names and descriptions in
order; where it grew out of another one it names that one's digest, and what became of each of its ids.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..digests import Json, canonical_json, digest
from ..errors import UsageError
from .class_map import ClassMap

NUMBERED = re.compile(r"t(\d{1,9})")
MAX_NAME, MAX_DESCRIPTION = 120, 600
"""Characters."""
OTHER = "Other"
"""What fits no category; never one of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Category:
    """One category."""

    id: str
    """Never given to another one."""
    name: str
    description: str = ""

    def to_json(self) -> Json:
        return {"id": self.id, "name": self.name, "description": self.description}


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """Categories in order; raises UsageError where two have one id or one name, or one is called `Other`."""

    categories: tuple[Category, ...]
    parent: str | None = None
    """Digest of the taxonomy that it grew out of."""
    moved: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Ids of the parent that are gone -> the id that they went into; None: into none."""
    next_id: int = 1
    """Of the next category that `t<number>` names: numbers of those that are gone are not used again."""

    def __post_init__(self) -> None:
        for what, values in (("id", self.ids), ("name", tuple(name.casefold() for name in self.names))):
            if doubled := next((value for value in values if values.count(value) > 1), None):
                raise UsageError(f"every category needs a {what} of its own, got {doubled!r} twice.")
        for each in self.categories:
            check(each)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(each.id for each in self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.categories)

    @property
    def class_map(self) -> ClassMap:
        """Class `i` is category `i`."""
        return ClassMap(self.names)

    @property
    def digest(self) -> str:
        """Of the categories: where they came from decides nothing."""
        return digest([each.to_json() for each in self.categories])

    def to_json(self) -> dict[str, Json]:
        return {
            "classes": [each.to_json() for each in self.categories],
            "parent": self.parent,
            "moved": dict(self.moved),
            "next_id": self.next_id,
        }

    def to_bytes(self, **more: Json) -> bytes:
        """As its file has it, with `more` for people (how it was built)."""
        return canonical_json({**self.to_json(), **more}) + b"\n"

    def renamed(self, new: "Taxonomy") -> dict[str, tuple[str, str]]:
        """Ids that both have under other names -> (before, after)."""
        before = {each.id: each.name for each in self.categories}
        return {
            each.id: (before[each.id], each.name)
            for each in new.categories
            if before.get(each.id, each.name) != each.name
        }


def check(category: Category) -> None:
    """Raises UsageError where a category is not well-formed."""
    name, description = category.name, category.description
    for text in (category.id, name, description):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"half of a surrogate pair is no text: {text[:130]!a}. Write the file as UTF-8.")
    for what, text in (("id", category.id), ("name", name)):
        if not text.strip() or text != " ".join(text.split()) or len(text) > MAX_NAME:
            raise UsageError(f"a category's {what} is one line of at most {MAX_NAME} characters, got {text[:130]!r}.")
    if name.casefold() == OTHER.casefold():
        raise UsageError(f"{OTHER!r} is what fits no category, and cannot be one: it is always there. Leave it out.")
    if len(description) > MAX_DESCRIPTION:
        raise UsageError(f"the description of {name!r} has {len(description)} characters, at most {MAX_DESCRIPTION}.")


def parse_taxonomy(text: str | bytes, where: str) -> Taxonomy:
    """A file's taxonomy: `{classes: [...]}`, each with `name` and, if it has one, `id` and `description`; or a list
    of names. An id that is not given is the name.

    Raises UsageError that names the file and what is wrong.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error}).") from error
    try:
        return from_json(fields)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def from_json(fields: Any) -> Taxonomy:
    """Raises UsageError where it is no taxonomy."""
    told = fields if isinstance(fields, list) else fields.get("classes") if isinstance(fields, dict) else None
    if not isinstance(told, list) or not told:
        raise UsageError(
            'a taxonomy is {"categories": [{"name": ..., "description": ...}, ...]} or a list of names, got '
            f"{type(fields).__name__} without classes."
        )
    categories = tuple(category_of(each) for each in told)
    if isinstance(fields, list):
        return Taxonomy(categories)
    parent, moved, next_id = fields.get("parent"), fields.get("moved") or {}, fields.get("next_id", 1)
    if not isinstance(moved, dict) or not isinstance(next_id, int):
        raise UsageError(
            "`moved` of a taxonomy is a mapping and `next_id` a number. Leave both out in one of your own."
        )
    return Taxonomy(categories, parent if isinstance(parent, str) else None, moved, next_id)


def category_of(told: Any) -> Category:
    """A name, or a mapping with `name`, `id` and `description`."""
    fields = {"name": told} if isinstance(told, str) else told
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise UsageError(f"a category is a name, or has a `name`, got {str(told)[:80]!r}.")
    if unknown := sorted(fields.keys() - {"id", "name", "description"}):
        raise UsageError(f"a category has id, name and description, got {unknown[0]!r} in {fields['name']!r}.")
    name = str(fields["name"])
    return Category(str(fields.get("id", "") or name), name, str(fields.get("description") or ""))


def grown(before: Taxonomy, told: Sequence[Mapping[str, Any]], merged: Mapping[str, Any], most: int) -> Taxonomy:
    """What a revision makes of a taxonomy: ids that it names stay, and those of names that it repeats; others are new.

    `told` are mappings with `name`, and perhaps `id` and `description`, the first `most` of which count; `merged` says
    into which id each one that is gone went. What is told twice, or is `Other`, is passed over.
    """
    by_name = {each.name.casefold(): each.id for each in before.categories}
    known, next_id = set(before.ids), first_free(before)
    categories: dict[str, Category] = {}
    seen = {OTHER.casefold()}
    for each in told:
        name = " ".join(str(each.get("name") or "").split())[:MAX_NAME].strip()
        if not name or name.casefold() in seen or len(categories) == most:
            continue
        given = str(each.get("id") or "")
        wanted = given if given in known else by_name.get(name.casefold(), "")
        if not wanted or wanted in categories:
            wanted, next_id = f"t{next_id}", next_id + 1
        seen.add(name.casefold())
        description = " ".join(str(each.get("description") or "").split())[:MAX_DESCRIPTION].strip()
        categories[wanted] = Category(wanted, name, description)
    gone = [each for each in before.ids if each not in categories]
    moved = {each: str(merged.get(each)) if str(merged.get(each)) in categories else None for each in gone}
    return Taxonomy(tuple(categories.values()), before.digest if before.categories else None, moved, next_id)


def first_free(taxonomy: Taxonomy) -> int:
    """The number of the next new category: beyond every one that is or was, also where a person wrote the ids."""
    numbers = [int(found[1]) for each in (*taxonomy.ids, *taxonomy.moved) if (found := NUMBERED.fullmatch(each))]
    return max([taxonomy.next_id, *(number + 1 for number in numbers)])


def traced(old: Taxonomy, steps: Sequence[Taxonomy]) -> dict[str, str | None]:
    """Ids of `old` -> where they went through all the steps after it, for those that are gone in the last."""
    where: dict[str, str | None] = {each: each for each in old.ids}
    for step in steps:
        where = {each: step.moved.get(now, now) if now is not None else None for each, now in where.items()}
    return {each: now for each, now in where.items() if now != each}
