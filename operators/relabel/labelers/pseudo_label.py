"""Labeler `pseudo_label`: a text in, the classes of a closed set out, by a language model, with what it was sure of.

Scoring whole labels with the prompt's prefix computed once, and answers held to a trie, follow PTEC (arXiv 2309.12075);
labels as JSON under a taxonomy TnT-LLM (arXiv 2403.12173). A text cannot change its instruction: see `prompts.as_line`.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labels.contract import LabelContract
from ..labels.pseudo import AnswerFlag, answered_contract, no_class, scored_contract
from ..reasons import Reason
from .caption_writer import read_text
from .engine_labeler import EngineLabeler, SampleCells, seed_of
from .engines.choice import EngineChoice
from .engines.protocol import Decoding, EngineConfig, Message, Reply, Request
from .excerpts import both_ends, excerpt, text_of
from .json_answers import Reading, answer_schema, read_answer
from .label_sets import LabelSet, from_classes, label_set
from .labeler import KEY, Fields, Prepared
from .prompts import Template, as_data, as_line, cues_of, without_cues
from .pseudo_parameters import NAMES, PseudoLabelSettings
from .registry import register

MAX_SAID = 4096
"""Characters of an answer that are kept."""
SEVERAL = 0.5
"""A class applies where so large a share of the prompts says so."""

S = TypeVar("S", bound=PseudoLabelSettings)


class PseudoLabelParameters(PseudoLabelSettings):
    """What pseudo-labels are made with."""

    engine: EngineChoice
    """The model that labels: `{kind: transformers, model: FOLDER}`, `{kind: endpoint, url: ..., model: ...}`."""


class PseudoLabels(EngineLabeler[S]):
    """Pseudo-labels by any engine; a subclass says which one."""

    needs = ("text", KEY)

    def __init__(self, parameters: S, label: str = "") -> None:
        super().__init__(parameters, label)
        self.wants = parameters.fields

    @functools.cached_property
    def labels(self) -> LabelSet:
        """From the facts: where the labeler runs there may be no taxonomy's file."""
        return from_classes(self.facts["labels"]) if self.facts else label_set(self.parameters.labels)

    @functools.cached_property
    def templates(self) -> tuple[Template, ...]:
        return tuple(Template(each, (*NAMES, *self.parameters.fields)) for each in self.parameters.templates)

    @functools.cached_property
    def cues(self) -> tuple[re.Pattern[str] | None, ...]:
        """Of every prompt, what finds its own cues in a text."""
        return tuple(cues_of(template.fixed) for template in self.templates)

    @functools.cached_property
    def own_words(self) -> dict[str, str]:
        """What prompts may speak of beside the sample."""
        labels, letters = self.labels, self.parameters.options == "letters"
        shown = {"labels": labels.listed(), "definitions": labels.defined(), "other": self.parameters.other}
        return {**shown, "options": labels.lettered() if letters else ""}

    @property
    def many(self) -> int:
        """Prompts."""
        return len(self.parameters.templates)

    def weight_files(self) -> Sequence[Path]:
        given = self.parameters.labels
        return (*super().weight_files(), *([Path(given).expanduser()] if isinstance(given, str) else []))

    def inspected_parameters(self) -> dict[str, Json]:
        mine = self.parameters.model_dump(mode="json", include={"labels"})
        return {**super().inspected_parameters(), **mine}

    def inspect(self) -> dict[str, Json]:
        """Also the classes themselves."""
        self.parameters.check_labels()
        labels = label_set(self.parameters.labels)
        return {**super().inspect(), "labels": labels.to_json(), "class_names": list(labels.names)}

    def identity(self) -> dict[str, Json]:
        """Every prompt by its digest; the classes, wherever they were written down."""
        known = super().identity()
        parameters = {name: value for name, value in known["parameters"].items() if name not in ("labels", "prompts")}
        return {**known, "parameters": parameters, "prompts": [template.digest for template in self.templates]}

    def writes(self) -> LabelContract:
        """Raises UsageError where the engine cannot do what is asked of it."""
        config, said = self.engine_config, self.parameters
        if said.how == "score":
            require_scores(config, said)
            return scored_contract(self.label, self.labels.names, self.many, config.reproducible)
        if said.held and not config.holds:
            raise UsageError("this engine holds no answer to a schema; leave `held` out, or say `how: choose`.")
        return answered_contract(self.label, self.labels.names, self.many, config.reproducible, said.most > 1)

    def prepare(self, sample: Fields) -> Prepared:
        """The text as one line that cannot leave its place, as much of it as there is room for; and the fields."""
        said = self.parameters
        ends = both_ends(text_of(sample["text"]), said.text_tokens)
        line = excerpt(as_line(ends.text), said.text_tokens, said.head)
        if not any(map(str.isalnum, line.text)):
            raise BadSample(Reason.EMPTY_FIELD, "the text has no letter and no digit")
        fields = {f"field {name}": as_data(text_of(sample.get(name)), said.max_chars) for name in said.fields}
        return {
            "text": np.array(line.text),
            "truncated": np.array(ends.truncated or line.truncated),
            "key": np.array(read_text(sample[KEY], "the key")),
            **{name: np.array(text) for name, text in fields.items()},
        }

    async def label_sample(self, sample: SampleCells) -> Mapping[str, Any]:
        """Prompt after prompt: an engine is kept busy by many samples."""
        labelled = self._scored if self.parameters.how == "score" else self._answered
        return {**await labelled(sample), "truncated": bool(sample["truncated"])}

    def request(self, sample: SampleCells, number: int, attempt: int = 1) -> Request:
        """What the engine is asked: a function of the sample, the prompt and the attempt alone."""
        said, labels, cues = self.parameters, self.labels, self.cues[number]
        data = {name: str(sample[f"field {name}"]) for name in said.fields} | {"text": str(sample["text"])}
        given = {name: without_cues(text, cues) for name, text in data.items()}
        prompt = self.templates[number].fill({**self.own_words, **given})
        choices = tuple(said.before + name for name in labels.names) if said.how == "choose" else None
        holds = self.engine_config.holds if said.held is None else said.held
        schema = answer_schema(labels, said.other, said.most) if said.how == "json" and holds else None
        return Request(
            prompt=(Message("user", prompt),) if said.is_chat else prompt,
            decoding=self._decoding(choices, attempt),
            seed=seed_of(said.seed, str(sample["key"]), number, attempt),
            schema=schema,
            choices=choices,
            most=said.most if choices else 1,
        )

    def _decoding(self, choices: Sequence[str] | None, attempt: int) -> Decoding:
        if choices is None:
            temperature = 0.0 if attempt == 1 else self.parameters.retry_temperature
            return Decoding(max_tokens=self.parameters.max_tokens, temperature=temperature)
        lengths = sorted((len(choice.encode()) + 2 for choice in choices), reverse=True)  # a token has a byte at least
        ends = () if self.parameters.is_chat else (self.parameters.terminator,)
        return Decoding(max_tokens=sum(lengths[: self.parameters.most]), stop=ends)

    async def _scored(self, sample: SampleCells) -> dict[str, Any]:
        said, count = self.parameters, len(self.labels.names)
        names = [chr(ord("A") + number) for number in range(count)] if said.options == "letters" else self.labels.names
        ending = "" if said.options == "letters" else said.terminator
        texts = [f"{said.before}{name}{ending}" for name in names]
        found = [await self.engine.score(self.request(sample, number), texts) for number in range(self.many)]
        likelihood = np.array([[each.logprob for each in row] for row in found], np.float64)
        if not np.isfinite(likelihood).all():
            raise BadSample(Reason.ENGINE_ERROR, "the engine gave log-likelihoods that are not finite")
        scores = probabilities(likelihood, said.combine)
        order = np.argsort(-scores, kind="stable")
        return {
            "ids": order,
            "scores": scores[order],
            "votes": likelihood.argmax(axis=1),
            "prompt_tokens": np.array([row[0].prompt_tokens for row in found]),
            "log_likelihood": likelihood,
            "tokens": np.array([each.num_tokens for each in found[0]]),
        }

    async def _answered(self, sample: SampleCells) -> dict[str, Any]:
        asked = [await self._ask(sample, number) for number in range(self.many)]
        readings, replies = [reading for reading, _ in asked], [reply for _, replies in asked for reply in replies]
        count = len(self.labels.names)
        shares = np.zeros(count)
        for reading in readings:
            shares[list(reading.chosen)] += 1 / self.many
        named = [number for reading in readings for number in reading.chosen]
        first = {number: named.index(number) for number in named}
        order = sorted(range(count), key=lambda number: (-shares[number], first.get(number, len(named)), number))
        flags = sorted({flag for reading in readings for flag in reading.flags})
        cells = {
            "ids": np.array(order) if named else np.full(count, no_class(count)),
            "scores": shares[order],
            "votes": np.array([reading.chosen[0] if reading.chosen else -1 for reading in readings]),
            "prompt_tokens": np.array([replies[0].prompt_tokens for _, replies in asked]),
            "answers": [readable(replies[-1].text) for _, replies in asked],
            "attempts": max(len(replies) for _, replies in asked),
            "completion_tokens": sum(reply.completion_tokens for reply in replies),
            "flags": flags,
        }
        several = {"applicable": [number for number in order if shares[number] >= SEVERAL]}
        return {**cells, **(several if self.parameters.most > 1 else {})}

    async def _ask(self, sample: SampleCells, number: int) -> tuple[Reading, list[Reply]]:
        """What the answers to one prompt say in the end, and all of them."""
        if self.parameters.how == "choose":
            reply = await self.engine.generate(self.request(sample, number))
            return self._chosen(reply), [reply]
        replies: list[Reply] = []
        reading = Reading((), ())
        for attempt in range(1, self.parameters.attempts + 1):
            replies.append(await self.engine.generate(self.request(sample, number, attempt)))
            reading = read_answer(replies[-1].text, self.labels, self.parameters.other, self.parameters.most)
            if replies[-1].finish_reason != "stop":
                reading = Reading(reading.chosen, (*reading.flags, AnswerFlag.CUT))
            if reading.final:
                break
        return reading, replies

    def _chosen(self, reply: Reply) -> Reading:
        """The choices that an engine gave."""
        given = (reply.text,) if reply.chosen is None else reply.chosen
        found = [self.labels.match(text) for text in given]
        chosen = tuple(dict.fromkeys(number for number in found if number is not None))
        strange = (AnswerFlag.OUT_OF_TAXONOMY,) if None in found or not found else ()
        return Reading(chosen, (*strange, *([AnswerFlag.CUT] if reply.finish_reason == "length" else [])))


def require_scores(config: EngineConfig, said: PseudoLabelSettings) -> None:
    """Raises UsageError where the engine gives no probabilities of given texts."""
    kind = str(getattr(config, "kind", type(config).__name__))
    if not config.scores:
        raise UsageError(
            f"an engine of kind {kind} gives no probabilities of given texts, which `how: score` needs. Use `kind: "
            "transformers`, an endpoint that echoes prompts with log-probabilities, or `how: choose`."
        )
    if kind == "endpoint" and said.is_chat:
        raise UsageError("an endpoint scores texts after plain prompts only. Leave `chat` out, or say `chat: false`.")


def probabilities(likelihood: Float64[np.ndarray, "prompts classes"], combine: str) -> Float64[np.ndarray, " classes"]:
    """Normalised over the classes for every prompt; then the mean of probabilities, or of their logarithms (normalised
    again).
    """
    logs = likelihood - np.logaddexp.reduce(likelihood, axis=1, keepdims=True)
    if combine == "probs":
        return np.asarray(np.exp(logs).mean(axis=0))
    mean = logs.mean(axis=0)
    return np.asarray(np.exp(mean - np.logaddexp.reduce(mean)))


def readable(text: str) -> str:
    """An answer as a file can hold it, as much as anybody reads."""
    return text[:MAX_SAID].encode("utf-8", "replace").decode()


@register
class PseudoLabelLabeler(PseudoLabels[PseudoLabelParameters]):
    """A text's class among those of a closed set, by a language model."""

    name, version = "pseudo_label", 1

    @property
    def engine_config(self) -> EngineConfig:
        return self.parameters.engine
