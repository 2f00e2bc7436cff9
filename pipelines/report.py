"""Report: one page about one release, complete in itself: what changed, what is doubtful, what failed, how it was made.

The page holds no script and asks for nothing; all text in it is escaped. It reads summaries and a bounded part of the
labels, so that its size and its time do not grow with the release.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from relabel.errors import RelabelError, UsageError
from relabel.releases.diff import shard_fates
from relabel.releases.release import CANDIDATE, Release, Store

from . import report_facts as facts
from .report_cards import cards
from .report_charts import chart, draw_progress
from .report_cost import costs
from .report_dead import letters
from .report_drift import drift
from .report_gallery import WEIGHED, galleries
from .report_media import Finder
from .report_pace import Pace, paces
from .report_samples import Part, take_part
from .summary_lines import tell_contest, tell_flags
from .terminal import visible

NUM_SAMPLES, MOST_SAMPLES = 24, 48
"""In the galleries: by default, and so that a page stays below 5 MB."""
PREVIOUS = "previous"


@dataclasses.dataclass(frozen=True)
class Report:
    """A page, and what it could not show."""

    release: str
    html: str
    samples: int
    """In its galleries."""
    notes: Sequence[str]


def report(store: Store, selector: str = "latest", against: str = PREVIOUS, samples: int = NUM_SAMPLES) -> Report:
    """The page of a release or candidate, compared with the release before it, or with another.

    `samples`: about so many are in the galleries.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"a report shows between 1 and {MOST_SAMPLES} samples, got {samples}.")
    release = store.release(selector, accept_partial=True, recalled="ignore")
    return page_of(store, release, against, samples, selector.startswith(CANDIDATE))


def page_of(
    store: Store, release: Release, against: str = PREVIOUS, samples: int = NUM_SAMPLES, candidate: bool = False
) -> Report:
    """As `report`, of a release that is open; it need not be published yet."""
    notes: list[str] = []
    before = release_before(store, release, against, notes)
    part = take_part(release, before)
    notes += part.notes
    finder = Finder(release, notes)
    dead = letters(release, finder)
    shown = [(name, [*cards(part, name, found, finder)]) for name, found in galleries(part, samples).items() if found]
    html = page().render(
        name=facts.name_of_store(store.url),
        title=f"candidate {release.version.run_id}" if candidate else f"release {release.number}",
        standing=facts.standing(store, release, candidate),
        facts=facts.facts(store, release, candidate),
        tiles=facts.tiles(release.counts, before.counts if before else None),
        reasons=facts.reasons(release.counts, before.counts if before else None),
        shards=shards_told(release, before),
        labels=facts.labels(release.version, before.version if before else None),
        before=before.number if before else None,
        gate=release.version.gate,
        checks=facts.checks(release.version.gate) if release.version.gate else (),
        drifts=[drift(part, name) for name in release.labels if part.num_rows],
        summary=summary_told(release, before),
        galleries=shown,
        looked_at=looked_at(part),
        weighed=WEIGHED,
        dead=dead,
        paces=[(each, progress(each)) for each in paces_of(release, before)],
        costs=costs(release.version.to_json().get("usage")),
        provenance=facts.provenance(release.version),
        numerics=facts.numerics(release.version),
        recipe=facts.recipe_text(release.version),
        commands=facts.next_commands(store, release, candidate),
        notes=notes,
    )
    named = f"{CANDIDATE}{release.version.run_id}" if candidate else str(release.number)
    return Report(named, html, sum(len(each) for _, each in shown), notes)


def encoded(found: Report) -> bytes:
    """Half a surrogate pair, which JSON can spell, becomes a question mark."""
    return found.html.encode("utf-8", "replace")


def write(found: Report, out: Path) -> None:
    """Afterwards `out` is the whole page."""
    if not out.absolute().parent.is_dir() or out.is_dir():
        raise UsageError(f"-o expects a file in a folder that exists, got {str(out)!r}.")
    partial = out.with_name(f"{out.name}.partial")
    partial.write_bytes(encoded(found))
    partial.replace(out)


@functools.cache
def page() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=shown
    )
    return environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))


def shown(value: object) -> object:
    """Text without control characters; of markup, markup."""
    return visible(value) if isinstance(value, str) else value


def release_before(store: Store, release: Release, against: str, notes: list[str]) -> Release | None:
    """The one that it is compared with; None where there is none, or it cannot be read."""
    if against != PREVIOUS:
        return store.release(against, accept_partial=True, recalled="ignore")
    if not release.version.parent:
        return None
    try:
        return store.release(release.version.parent, accept_partial=True, recalled="ignore")
    except RelabelError as error:
        notes.append(f"Not compared with release {release.version.parent}: {error}")
        return None


def shards_told(release: Release, before: Release | None) -> str:
    if before is None:
        return ""
    fates = shard_fates(before.entries, release.entries)
    return ", ".join(f"{len(names):,} {fate}" for fate, names in fates.items() if names)


def looked_at(part: Part) -> str:
    """What galleries, classes and scores were taken from."""
    alive = part.release.counts.shards - part.release.counts.dead_shards
    of = f"{part.fresh:,} shards that were labelled since" if part.fresh else f"{alive:,} shards"
    return f"{part.num_rows:,} samples of {len(part.rows)} of {of}, chosen by a hash"


def summary_told(release: Release, before: Release | None) -> list[tuple[str, str, str]]:
    """Over all rows: what, now, before."""
    now, old = release.summary, before.summary if before else None
    if now is None:
        return []
    beaten, flagged = (old.contests, old.flags) if old else ({}, {})
    wins = [
        (" > ".join(names), tell_contest(each), tell_contest(beaten[names]) if names in beaten else "")
        for names, each in sorted(now.contests.items())
    ]
    flags = [
        (name, tell_flags(each), tell_flags(flagged[name]) if name in flagged else "")
        for name, each in sorted(now.flags.items())
    ]
    return [*wins, *flags]


def paces_of(release: Release, before: Release | None) -> list[Pace]:
    """Of what was labelled since the release before."""
    old = before.entries if before else {}
    return paces(
        release,
        (entry for name, entry in release.entries.items() if name not in old or old[name].outcome != entry.outcome),
    )


def progress(pace: Pace) -> Markup:
    draw = functools.partial(draw_progress, seconds=pace.seconds, samples=pace.samples, phases=pace.phases)
    told = f"{pace.samples[-1]:,} samples in {pace.seconds[-1]:.0f} seconds"
    return chart(f"pace of {pace.run}", 1.7, draw, f"Samples finished over time: {told}")
