"""Taxonomy build: a language model induces a taxonomy from a sample of texts (TnT-LLM, arXiv 2403.12173).

Every text is summarised; minibatches of summaries in turn revise one table of categories, until so many of them in a
row changed nothing; a last look reviews it. A reply that is no table never costs the table that there was. What is
returned is a function of the texts, in their order, of the engine and of the settings. No text, summary or category can
pretend to be a part of a prompt: see `data_of`.
"""

import asyncio
import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from ..digests import Json
from ..errors import BadSample, Refused, UsageError
from ..labels.taxonomy import MAX_DESCRIPTION, MAX_NAME, OTHER, Taxonomy, grown, traced
from ..reasons import Reason
from .engine_labeler import seed_of
from .engines.protocol import Decoding, Engine, Message, Request
from .labeler import Parameters
from .prompts import MAX_PROMPT, Template, as_data, cues_of, without_cues

NAME_WORDS, DESCRIPTION_WORDS = 10, 30
SUMMARY_CHARACTERS, NAME_CHARACTERS, DESCRIPTION_CHARACTERS = 200, 80, 200
CATEGORY_CHARACTERS = len("- [t123]  - \n") + NAME_CHARACTERS + DESCRIPTION_CHARACTERS
"""Of a line of the table, at most."""
KEPT_AT_ONCE = 32
"""Summaries that are made before they are put where a build that is killed finds them."""
BLOCK = re.compile(r"\{.*\}|\[.*\]", re.DOTALL)
LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*(?P<name>[^:\n]{2,200}?)\s*(?::\s*(?P<description>.*))?$")
"""`1. name: description`, which small models write where they were asked for JSON."""
LEAST_LINES = 2

SUMMARY = """Summarise the text in at most 20 words: what it is about.

Text: {{ text }}

Summary:"""
TABLE = """Here are summaries of texts, one a line. Make a table of at most {{ most }} categories {{ use }}.
Categories are flat, do not overlap, and none is called Other. A name has at most 10 words, a description at most 30.

{% if table %}The table so far (keep an id where the category stays, also under a better name):
{{ table }}

{% endif %}Summaries:
{{ texts }}

Answer with JSON alone: {"rating": 0 to 100 for how well the table so far covers these texts, "categories": [{"id": the
id or "", "name": "", "description": ""}], "merged": {"an id that is gone": "the id it went into"}}

JSON:"""
ASSIGN = """Categories:
{{ table }}

Text: {{ text }}

The category of the text or else Other:"""


class TaxonomySettings(Parameters):
    """How a taxonomy is induced. All of it decides the result."""

    use: str = Field(default="by what the texts are about", min_length=1, max_length=400)
    """What the categories are for, as the prompt says it: `by the intent of the user`."""
    categories: int = Field(default=25, ge=2, le=200)
    """At most so many."""
    minibatch: int = Field(default=200, ge=2)
    """Summaries that the model sees at a time."""
    patience: int = Field(default=3, ge=1)
    """So many minibatches in a row that change nothing end it."""
    validation: float = Field(default=0.2, ge=0, lt=1)
    """The share of the sample that is kept apart, for the coverage."""
    attempts: int = Field(default=3, ge=1)
    """At a reply that can be read, each with another seed."""
    max_chars: int = Field(default=2000, ge=40)
    """Of a text that the model is shown."""
    summarise: bool = True
    """False: texts are short, and are shown as they are."""
    chat: bool = True
    """Prompts go through the model's chat template; false: as plain text, for models that have none."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the first attempt; later ones take at least 0.7."""
    max_tokens: int = Field(default=2048, ge=16)
    """Of a table."""
    summary_tokens: int = Field(default=48, ge=4)
    """Of a summary."""
    seed: int = Field(default=0, ge=0)
    """Of what is drawn."""

    @model_validator(mode="after")
    def fits_a_prompt(self) -> "TaxonomySettings":
        each = self.line_characters
        room = MAX_PROMPT - len(TABLE) - len(self.use) - self.categories * CATEGORY_CHARACTERS
        if self.max_chars > room:
            raise ValueError(
                f"a prompt has at most {MAX_PROMPT} characters; beside a table of {self.categories} categories at most "
                f"{room} of a text fit, got max_chars: {self.max_chars}. Lower it"
            )
        if self.minibatch * each > room:
            short = "" if self.summarise else ", or max_chars, or leave `summarise: false` out"
            raise ValueError(
                f"a prompt has at most {MAX_PROMPT} characters; with a table of {self.categories} categories "
                f"{max(0, room // each)} texts of {each} characters fit, got minibatch: {self.minibatch}. Lower "
                f"minibatch{short}, or categories"
            )
        return self

    @property
    def line_characters(self) -> int:
        """What a text takes of a minibatch's prompt, at most."""
        return len("- \n") + (SUMMARY_CHARACTERS if self.summarise else self.max_chars)


@dataclasses.dataclass(frozen=True)
class Built:
    """A taxonomy, and how it came about."""

    taxonomy: Taxonomy
    coverage: float | None
    """The share of the validation texts for which the model named a category, not Other; None: none was kept apart."""
    trace: tuple[Mapping[str, Json], ...]
    """One entry per minibatch and one of the review: what was rated, changed, kept because the reply was no table."""
    unsummarised: int
    """Texts whose first words stand for the summary that the model did not give."""

    def to_json(self) -> dict[str, Json]:
        return {
            "coverage": self.coverage,
            "trace": [dict(entry) for entry in self.trace],
            "unsummarised": self.unsummarised,
        }


@dataclasses.dataclass(frozen=True)
class Kept:
    """Replies that a build which was interrupted had got: texts' numbers -> what the model said of them."""

    replies: Mapping[int, str] = dataclasses.field(default_factory=dict)
    keep: Callable[[Mapping[int, str]], None] = lambda replies: None
    """Gets more of them, to be kept for the next build of the same texts; called in threads."""


def summaries_of(settings: TaxonomySettings, texts: Sequence[str]) -> Json:
    """All that the replies which `Kept` holds depend on, beside the engine."""
    asked = settings.model_dump(include={"validation", "max_chars", "chat", "temperature", "summary_tokens", "seed"})
    return {"prompt": SUMMARY, "settings": asked, "texts": list(texts)}


def require_room(settings: TaxonomySettings, start: Taxonomy | None) -> None:
    """Raises UsageError where a minibatch and the table that it begins with exceed a prompt."""
    table, each = len(listed(start or Taxonomy(()))), settings.line_characters
    room = MAX_PROMPT - len(TABLE) - len(settings.use) - table
    if settings.minibatch * each > room:
        raise UsageError(
            f"the taxonomy that it begins with takes {table} characters of a prompt, which has at most {MAX_PROMPT}: "
            f"{max(0, room // each)} texts fit beside it, got minibatch: {settings.minibatch}. Lower minibatch, or "
            "shorten its descriptions."
        )


async def build_taxonomy(
    engine: Engine, concurrency: int, texts: Sequence[str], settings: TaxonomySettings, start: Taxonomy | None = None,
    kept: Kept | None = None,
) -> Built:  # fmt: skip
    """Induce a taxonomy from texts, from `start` on where there is one.

    Raises Refused where the model gave no table at all, UsageError where its first prompt of a table is too long for
    it; what kills the engine or keeps it away is raised as it is.
    """
    require_room(settings, start)
    return await Builder(engine, concurrency, settings, start, kept or Kept()).build(texts)


class Builder:
    """One build."""

    def __init__(
        self, engine: Engine, concurrency: int, settings: TaxonomySettings, start: Taxonomy | None, kept: Kept
    ) -> None:
        self.engine, self.settings, self.kept, self.fresh = engine, settings, kept, dict[int, str]()
        self.room = asyncio.Semaphore(concurrency)
        self.start = start or Taxonomy(())
        self.table, self.steps = self.start, list[Taxonomy]()
        self.trace: list[dict[str, Json]] = []
        self.unsummarised = 0

    async def build(self, texts: Sequence[str]) -> Built:
        shown = [data_of(text, self.settings.max_chars) for text in texts]
        kept = round(len(shown) * self.settings.validation)
        held_out, building = shown[:kept], shown[kept:]
        try:
            summaries = await asyncio.gather(*(self.summary(index, text) for index, text in enumerate(building)))
        finally:
            await self.keep()
        unchanged = 0
        for first in range(0, len(summaries), self.settings.minibatch):
            changed = await self.revise("minibatch", summaries[first : first + self.settings.minibatch])
            unchanged = 0 if changed or not self.table.categories else unchanged + 1
            if unchanged == self.settings.patience:
                break
        if not self.table.categories:
            raise Refused(
                f"the model gave no table of categories in {len(self.trace)} minibatches of {self.settings.attempts} "
                f"attempts (the last reply began: {self.trace[-1]['reply'] if self.trace else 'nothing'!r}). Give a "
                "larger model, smaller `minibatch`, or a taxonomy of your own to begin with."
            )
        await self.revise("review", summaries[: self.settings.minibatch])
        coverage = await self.coverage(held_out) if held_out else None
        return Built(self.final(), coverage, tuple(self.trace), self.unsummarised)

    def final(self) -> Taxonomy:
        """The last table as the successor of the one that it began with."""
        if not self.start.categories:
            return dataclasses.replace(self.table, parent=None, moved={})
        if self.table.digest == self.start.digest:
            return self.start
        return dataclasses.replace(self.table, parent=self.start.digest, moved=traced(self.start, self.steps))

    async def summary(self, index: int, text: str) -> str:
        """Of one text; its own first words where the model gives none."""
        if not self.settings.summarise:
            return text
        reply = self.kept.replies.get(index)
        if reply is None:
            prompt = template(SUMMARY).fill({"text": text})
            reply = await self.answer(prompt, self.settings.summary_tokens, 0, "summary", index, stop=("\n",))
            if reply is not None:
                self.fresh[index] = reply
            if len(self.fresh) >= KEPT_AT_ONCE:
                await self.keep()
        if summary := " ".join((reply or "").split()[:20]):
            return data_of(summary, SUMMARY_CHARACTERS)
        self.unsummarised += 1
        return data_of(" ".join(text.split()[:20]), SUMMARY_CHARACTERS)

    async def keep(self) -> None:
        """Puts the newest replies where the next build finds them, should this one not end."""
        replies, self.fresh = self.fresh, {}
        if replies:
            await asyncio.to_thread(self.kept.keep, replies)

    async def revise(self, what: str, summaries: Sequence[str]) -> bool:
        """Whether the table is another one now; a reply that is no table leaves it as it is."""
        table = listed(self.table)
        data = {
            "texts": "\n".join(f"- {summary}" for summary in summaries),
            "table": table,
            "most": str(self.settings.categories),
            "use": self.settings.use,
        }
        prompt = template(TABLE).fill(data)
        number, reply = len(self.trace), ""
        entry: dict[str, Json] = {"what": what, "texts": len(summaries)}
        for attempt in range(self.settings.attempts):
            try:
                reply = await self.ask(prompt, self.settings.max_tokens, attempt, what, number)
            except BadSample as error:
                if error.reason == Reason.PROMPT_TOO_LONG and not self.trace:
                    raise UsageError(
                        f"a minibatch of {len(summaries)} texts is too long for this model: {error.detail}. Lower "
                        f"minibatch ({self.settings.minibatch}), max_chars or max_tokens ({self.settings.max_tokens})."
                    ) from error
                reply = error.detail
                continue
            told = parse_table(reply)
            if told is None:
                continue
            after = grown(self.table, *told.with_ids_of(self.table), self.settings.categories)
            if not after.categories:
                continue
            changed = after.digest != self.table.digest
            if changed:
                self.steps.append(after)
                self.table = after
            self.trace.append(
                {**entry, "attempts": attempt + 1, "rating": told.rating, "changed": changed, "kept": False,
                 "categories": len(after.categories), "digest": after.digest}
            )  # fmt: skip
            return changed
        self.trace.append(
            {**entry, "attempts": self.settings.attempts, "rating": None, "changed": False, "kept": True,
             "categories": len(self.table.categories), "digest": self.table.digest, "reply": reply[:200]}
        )  # fmt: skip
        return False

    async def coverage(self, texts: Sequence[str]) -> float:
        """The share of the texts that the model puts into a category."""
        found = await asyncio.gather(*(self.assigned(index, text) for index, text in enumerate(texts)))
        return round(sum(found) / len(texts), 6)

    async def assigned(self, index: int, text: str) -> bool:
        data = {"table": listed(self.table, ids=False), "text": text}
        prompt = template(ASSIGN).fill(data)
        choices = (*self.table.names, OTHER)
        reply = await self.answer(prompt, 48, 0, "assign", index, choices=choices)
        return reply is not None and reply.strip().casefold() in {name.casefold() for name in self.table.names}

    async def answer(self, *asked: Any, **how: Any) -> str | None:
        """As `ask`; None where the model cannot answer this one."""
        try:
            return await self.ask(*asked, **how)
        except BadSample:
            return None

    async def ask(
        self, prompt: str, max_tokens: int, attempt: int, purpose: str, number: int, *,
        stop: tuple[str, ...] = (), choices: tuple[str, ...] | None = None,
    ) -> str:  # fmt: skip
        """The model's answer; raises as `Engine.generate` does."""
        temperature = self.settings.temperature if attempt == 0 else max(0.7, self.settings.temperature)
        request = Request(
            prompt=(Message("user", prompt),) if self.settings.chat else prompt,
            decoding=Decoding(max_tokens=max_tokens, temperature=temperature, stop=stop),
            seed=seed_of("taxonomy", self.settings.seed, purpose, number, attempt),
            choices=choices,
        )
        async with self.room:
            return (await self.engine.generate(request)).text


@functools.cache
def template(source: str) -> Template:
    """One of ours."""
    return Template(source, ("text", "texts", "table", "most", "use"))


@functools.cache
def cues() -> re.Pattern[str] | None:
    """What finds the cues of all prompts (`Text:`, `Summaries:`, `JSON:`) in what is filled in."""
    return cues_of(piece for source in (SUMMARY, TABLE, ASSIGN) for piece in template(source).fixed)


def data_of(text: str, max_chars: int) -> str:
    """A text, a summary, a category's name as one line that is no part of any prompt: see `prompts.as_data`."""
    return as_data(text, max_chars, cues())


@dataclasses.dataclass(frozen=True)
class Told:
    """What a reply says of a table."""

    categories: Sequence[Mapping[str, Any]]
    merged: Mapping[str, Any]
    rating: float | None

    def with_ids_of(self, table: Taxonomy) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
        """Categories and what was merged, by the table's own ids: those of people may be shown in another way."""
        ids = {data_of(each, MAX_NAME): each for each in table.ids}
        merged = {ids.get(gone, gone): ids.get(str(went), went) for gone, went in self.merged.items()}
        return [{**each, "id": ids.get(each["id"], each["id"])} for each in self.categories], merged


def parse_table(reply: str) -> Told | None:
    """A reply's table: JSON, else the JSON within it, else its lines `- name: description`; None: there is none."""
    for text in (reply, *(match.group() for match in BLOCK.finditer(reply))):
        try:
            found = told_by(json.loads(text))
        except (ValueError, RecursionError, OverflowError):
            continue
        if found is not None:
            return found
    lines = [match.groupdict() for line in reply.splitlines() if (match := LINE.match(line))]
    named = [short(each) for each in lines]
    return Told(named, {}, None) if len(named) >= LEAST_LINES else None


def told_by(fields: Any) -> Told | None:
    """None where these are no categories."""
    listed = fields.get("categories") if isinstance(fields, dict) else fields
    if not isinstance(listed, list):
        return None
    categories = [short(each if isinstance(each, dict) else {"name": each}) for each in listed]
    if not any(each["name"] for each in categories):
        return None
    merged = fields.get("merged") if isinstance(fields, dict) else None
    rating = fields.get("rating") if isinstance(fields, dict) else None
    number = float(rating) if isinstance(rating, int | float) and not isinstance(rating, bool) else None
    rated = min(100.0, max(0.0, number)) if number is not None and math.isfinite(number) else None
    return Told(categories, merged if isinstance(merged, dict) else {}, rated)


def short(told: Mapping[str, Any]) -> dict[str, str]:
    """A category as data: at most so many words, on one line."""
    most = {"name": (NAME_WORDS, NAME_CHARACTERS), "description": (DESCRIPTION_WORDS, DESCRIPTION_CHARACTERS)}
    texts = {name: data_of(str(told.get(name) or ""), room).split()[:words] for name, (words, room) in most.items()}
    return {"id": str(told.get("id") or ""), **{name: " ".join(text).strip("-:* ") for name, text in texts.items()}}


def listed(table: Taxonomy, ids: bool = True) -> str:
    """One category a line; people may have written them."""
    lines = []
    for each in table.categories:
        key, name = data_of(each.id, MAX_NAME), data_of(each.name, MAX_NAME)
        description = data_of(each.description, MAX_DESCRIPTION)
        line = without_cues(f"{name}: {description}" if description else name, cues())
        lines.append(f"- [{key}] {line}" if ids else f"- {line}")
    return "\n".join(lines)
