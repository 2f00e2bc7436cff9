"""Taxonomy: from a source of texts to a versioned taxonomy in a store, by way of a sample and a language model.

The sample is gathered once and frozen, as every statistic is; a taxonomy is written once under the next number, with
how it came about, unless nothing changed. Summaries are kept until then: who is killed goes on with those that it had.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relabel.digests import Json, digest, seal, unseal
from relabel.errors import StoreConflict, UsageError
from relabel.labelers.engine_labeler import UNIDENTIFIED
from relabel.labelers.engines.loop import Loop
from relabel.labelers.taxonomy_build import Built, Kept, build_taxonomy, require_room, summaries_of
from relabel.labels.taxonomy import Taxonomy, first_free, parse_taxonomy
from relabel.releases.stored import in_threads
from relabel.storage.objects import ObjectStore, settle
from relabel.storage.opening import open_store

from .account import Account
from .gathering import FOLDER as STATES
from .gathering import gather
from .in_process import device_for
from .loading import SHIPPED, load, load_as, read
from .opening import pinned
from .plan import make_job
from .ray_errors import ray_errors
from .results import Results
from .running import session_of
from .stopping import StopRequest
from .taxonomy_recipe import TaxonomyRecipe

FOLDER = "taxonomies"
SHIPPED_TAXONOMIES = SHIPPED / "taxonomy"
NAME = re.compile(rf"{FOLDER}/t(\d{{4,}})\.json")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Induced:
    """A taxonomy in a store."""

    taxonomy: Taxonomy
    path: str
    """Where it lies."""
    begun: Taxonomy | None
    """With which it began."""
    built: Built
    fresh: bool
    """False where the newest one is the same."""


def load_taxonomy(
    recipe: str | Path | Mapping[str, Any] | TaxonomyRecipe, overrides: Sequence[str] = ()
) -> TaxonomyRecipe:
    """A checked taxonomy recipe, as `loading.load`; raises UsageError, naming the field and the nearest known one."""
    return load_as(TaxonomyRecipe, recipe, overrides, SHIPPED_TAXONOMIES)


def induce(recipe: TaxonomyRecipe, refit: bool = False, say: Say = lambda line: None) -> Induced:
    """Build a taxonomy and put it into the store; `refit` draws the sample anew from today's rows.

    Raises Refused where the model gave no table, UsageError where what it begins with is no taxonomy, StoreConflict
    where another one was written meanwhile: both would give the same new ids to different categories.
    """
    store = open_store(recipe.store.url, recipe.store.storage_options)
    newest = max(numbers(store), default=0)
    begun, number = beginning(recipe, store, newest)
    require_room(recipe.build, begun)
    texts = sample(recipe, refit)
    say(f"sample    {len(texts)} texts" + (f"; begins with {len(begun.categories)} categories" if begun else ""))
    facts: dict[str, Json] = recipe.engine.inspect()
    folder = summaries_folder(recipe, facts, texts)
    built = asked(recipe, facts, texts, begun, kept_in(store, folder))
    taxonomy = built.taxonomy
    if begun is not None and number and taxonomy.digest == begun.digest:
        in_threads(store.delete, paths_in(store, folder))
        return Induced(taxonomy, store.full_url(path_of(number)), begun, built, fresh=False)
    how = {
        "build": recipe.build.model_dump(mode="json"),
        "engine": recipe.engine.identity(),
        "sample": {"texts": len(texts), "digest": digest(texts)},
        **built.to_json(),
    }
    data = taxonomy.to_bytes(sha256=taxonomy.digest, how=how)
    path = path_of(newest + 1)
    if settle(store, path, data) != data:
        raise StoreConflict(
            f"another run wrote {store.full_url(path)} while this one was at work, so nothing was written. Run again: "
            "it begins with that one."
        )
    in_threads(store.delete, paths_in(store, folder))
    return Induced(taxonomy, store.full_url(path), begun, built, fresh=True)


def beginning(recipe: TaxonomyRecipe, store: ObjectStore, newest: int) -> tuple[Taxonomy | None, int]:
    """What the build begins with, and its number where it is the newest of the store, else 0.

    Ids that the newest one has, or had, are not given again to others, whatever it begins with.
    """
    path = path_of(newest)
    held = parse_taxonomy(store.get(path), store.full_url(path)) if newest else None
    if recipe.begin is None:
        return held, newest
    begun = parse_taxonomy(read(Path(recipe.begin)), recipe.begin)
    if held is not None:
        begun = dataclasses.replace(begun, next_id=max(first_free(begun), first_free(held)))
    return begun, 0


def numbers(store: ObjectStore) -> list[int]:
    """Of the taxonomies of a store."""
    return [int(match[1]) for info in store.list(FOLDER) if (match := NAME.fullmatch(info.path))]


def path_of(number: int) -> str:
    return f"{FOLDER}/t{number:04d}.json"


def sample(recipe: TaxonomyRecipe, refit: bool) -> list[str]:
    """The texts of the sample, by their hashes."""
    checked = pinned(load(recipe.sampling()))
    results = Results(checked.store, refit)
    job = make_job(checked, None, results)
    stop = StopRequest()
    with contextlib.closing(session_of(job, None)) as session:
        if job.pending:
            with session.connected():
                gather(job, results, stop, ray_errors, Account())
            job = make_job(checked, None, results)
    texts = [str(text) for text in job.labelers[0].finished[0]["texts"]]
    if len(texts) < 2:
        raise UsageError(f"a taxonomy needs at least 2 texts, the source has {len(texts)}. Correct source or `where`.")
    return texts


def summaries_folder(recipe: TaxonomyRecipe, facts: Mapping[str, Json], texts: list[str]) -> str:
    """Where summaries lie until the taxonomy does: those that another engine or another sample would give elsewhere."""
    engine = {**recipe.engine.identity(), "facts": {k: v for k, v in facts.items() if k not in UNIDENTIFIED}}
    return f"{STATES}/taxonomy-{digest([engine, summaries_of(recipe.build, texts)])[:32]}"


def paths_in(store: ObjectStore, folder: str) -> list[str]:
    return [info.path for info in store.list(folder)]


def kept_in(store: ObjectStore, folder: str) -> Kept:
    """What an interrupted build left there, and where this one leaves its own."""
    held: dict[int, str] = {}
    for path in paths_in(store, folder):
        held |= {int(number): reply for number, reply in unseal(store.get(path), store.full_url(path))["replies"]}

    def keep(replies: Mapping[int, str]) -> None:
        store.put(f"{folder}/{min(replies):06d}.json", seal({"replies": [list(each) for each in replies.items()]}))

    return Kept(held, keep)


def asked(
    recipe: TaxonomyRecipe, facts: Mapping[str, Json], texts: list[str], begun: Taxonomy | None, kept: Kept
) -> Built:
    """The model's part, in this process."""
    config, resources = recipe.engine, recipe.resources
    engine = config.open(facts, device_for(resources), compute_batch=resources.compute_batch, threads=resources.threads)
    with contextlib.closing(Loop()) as loop:
        try:
            return loop.run(build_taxonomy(engine, config.concurrency, texts, recipe.build, begun, kept))
        finally:
            loop.run(engine.close())
