"""Caption writers: what labelers share that ask an engine for guarded text, attempt after attempt.

An answer that a guard rejects is asked for again, down the ladder; a sample whose every answer was rejected is a dead
letter that names the style and the flags. Nothing becomes an empty text, and the engine's own words are kept.
"""

import functools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator

from ..digests import Json
from ..errors import BadSample, UsageError
from ..labels.caption import Flag, caption_contract
from ..labels.contract import LabelContract
from ..languages import check_code, detector, model_digest
from ..reasons import Reason
from ..shards.shard import Value
from .engine_labeler import EngineLabeler, SampleCells, seed_of
from .engines.protocol import Image, Message, Reply, Request
from .guards import Action, Answer, Finding, Guards, actions_of, examine, tidied, told
from .labeler import Parameters
from .languages import name_of
from .prompts import Template, as_data
from .styles import LADDER, MOST_RUNGS, Rung, Style
from .text_tokens import counter, tokenizer_digest, tokenizer_files

MAX_OLD = 65_536
"""Characters of a text of the data set; more is no caption."""
DETAIL_CHARACTERS = 400


class WriterParameters(Parameters):
    """What every labeler has that asks an engine for guarded text; a labeler says which styles there are."""

    chat: bool = True
    """Prompts go through the model's chat template; false: they are plain text that the model goes on with, for
    captioners without one."""
    language: str | None = "en"
    """The ISO 639 code of the language that texts shall be in; null: any. Its name is `{{ language }}` in a prompt."""
    guards: Guards = Guards()
    """What becomes of a text with each flag (see `labelers.guards`)."""
    ladder: tuple[Rung, ...] = Field(default=LADDER, max_length=MOST_RUNGS)
    """What the attempts after the first change; the first rung that asks for nothing new is passed over."""
    text_tokens: int | None = Field(default=77, ge=4)
    """Tokens that a text encoder reads, its marks at both ends included; more is `over_budget`. null: any number."""
    text_tokenizer: str | None = None
    """A folder with that encoder's tokenizer. Default: an estimate of CLIP's count, for English within 5 % of it."""
    max_chars: int = Field(default=300, ge=0, le=8192)
    """The most of every field of the data set that is put into a prompt; more is cut off at a word."""
    seed: int = Field(default=0, ge=0)
    """Of all that is drawn, together with the sample's key, the style and the attempt."""

    @field_validator("language")
    @classmethod
    def is_a_code(cls, language: str | None) -> str | None:
        return language if language is None else check_code(language)


P = TypeVar("P", bound=WriterParameters)


class CaptionWriter(EngineLabeler[P]):
    """One guarded text per style; a subclass says what is asked and which labels and fields go into it."""

    @property
    @abstractmethod
    def styles(self) -> Mapping[str, Style]:
        """What is asked for, by name."""

    @property
    @abstractmethod
    def prompt_names(self) -> tuple[str, ...]:
        """What a prompt may speak of."""

    @property
    def keeps_old(self) -> bool:
        """Whether the old caption lies beside the new ones."""
        return False

    @functools.cached_property
    def actions(self) -> dict[str, dict[Flag, Action]]:
        """Style -> what becomes of a text with each flag."""
        return {name: actions_of(style.guards or self.parameters.guards) for name, style in self.styles.items()}

    def findings(self, style: str, answer: Answer) -> list[Finding]:
        """What the style's guards find in an answer."""
        return examine(self.actions[style], answer)

    def more_cells(self, text: str, old: str) -> dict[str, Any]:
        """Further columns of a style."""
        return {}

    def weight_files(self) -> Sequence[Path]:
        return (*super().weight_files(), *tokenizer_files(self.parameters.text_tokenizer))

    def inspected_parameters(self) -> dict[str, Json]:
        mine = self.parameters.model_dump(mode="json", include={"text_tokens", "text_tokenizer"})
        return {**super().inspected_parameters(), **mine, "judges_language": self.judges_language}

    def inspect(self) -> dict[str, Json]:
        """Also which tokenizer and which language detector decide flags."""
        return {
            **super().inspect(),
            "text_tokenizer": tokenizer_digest(self.parameters.text_tokenizer) if self.counts_tokens else None,
            "language_detector": model_digest() if self.judges_language else None,
        }

    def identity(self) -> dict[str, Json]:
        """Also every prompt's digest and what it speaks of; without the name of the tokenizer's folder.

        A style without guards of its own means what it meant when styles had none.
        """
        known = super().identity()
        parameters = {name: value for name, value in known["parameters"].items() if name != "text_tokenizer"}
        parameters["styles"] = {
            name: {field: value for field, value in style.items() if field != "guards" or value is not None}
            for name, style in parameters["styles"].items()
        }
        prompts = {
            f"{name}.{part}": {"sha256": template.digest, "speaks_of": list(template.used)}
            for name, pair in self.templates.items()
            for part, template in zip(("prompt", "system"), pair, strict=True)
            if template.source
        }
        return {**known, "parameters": parameters, "prompts": prompts}

    @property
    def counts_tokens(self) -> bool:
        return self.parameters.text_tokens is not None and self.looks_for(Flag.OVER_BUDGET)

    @property
    def judges_language(self) -> bool:
        return self.parameters.language is not None and self.looks_for(Flag.LANGUAGE)

    def looks_for(self, flag: Flag) -> bool:
        """Whether the guards of any style do."""
        return any(actions[flag] != "off" for actions in self.actions.values())

    @functools.cached_property
    def templates(self) -> dict[str, tuple[Template, Template]]:
        """Style -> prompt and system turn."""
        names = self.prompt_names
        styles = self.styles.items()
        return {name: (Template(style.prompt, names), Template(style.system, names)) for name, style in styles}

    def writes(self) -> LabelContract:
        """Raises UsageError where the model is known to take no such chat."""
        self.require_template()
        config = self.engine_config
        return caption_contract(
            self.label,
            list(self.styles),
            logprobs=config.logprobs,
            reproducible=config.reproducible,
            old=self.keeps_old,
        )

    def require_template(self) -> None:
        """A model without a chat template takes one user turn; raises UsageError where a style has a system turn."""
        known = self.facts.get("engine") or {}
        two = [name for name, style in self.styles.items() if style.system]
        if self.parameters.chat and two and known.get("chat_template", "unknown") is None:
            raise UsageError(
                f"the model of {self.label!r} has no chat template, which the system turns of the styles "
                f"{', '.join(two)} need. Add `chat: false` to the step and write prompts that the model goes on with, "
                "or give a model that was tuned for chat."
            )

    def load(self, device: str) -> None:
        """Raises UsageError also where tokenizer or language detector are not there."""
        if self.counts_tokens:
            counter(self.parameters.text_tokenizer)
        if self.judges_language:
            detector()
        super().load(device)

    async def write(
        self, style: str, key: str, data: Mapping[str, str], image: Image | None = None, old: str = ""
    ) -> dict[str, Any]:
        """One style's cells by suffix.

        Raises BadSample(UNUSABLE_TEXT) where every answer was rejected, and what the engine raises.
        """
        rejected: list[str] = []
        for attempt, rung in self.rungs(style):
            request = self.request(style, key, attempt, rung, data, image)
            try:
                reply = await self.engine.generate(request)
            except BadSample as error:
                if error.reason != Reason.PROMPT_TOO_LONG or not self.gets_shorter(attempt):
                    raise
                rejected.append(f"attempt {attempt}: {error.reason}")
                continue
            answer = self.answer(style, reply, old)
            found = self.findings(style, answer)
            if not any(each.rejects for each in found):
                flags = [str(each.flag) for each in found]
                return self.cells(answer, reply, len(rejected) + 1, flags) | self.more_cells(answer.text, old)
            rejected.append(f"attempt {attempt}: {told(each for each in found if each.rejects)}")
        raise BadSample(
            Reason.UNUSABLE_TEXT,
            f"style {style!r}: no answer passed the guards. {'; '.join(rejected)}"[:DETAIL_CHARACTERS],
        )

    def rungs(self, style: str) -> list[tuple[int, Rung]]:
        """Attempts by number, from 1; without those that a greedy engine would answer as the first."""
        greedy = self.styles[style].temperature == 0
        rest = [
            (number, rung)
            for number, rung in enumerate(self.parameters.ladder, start=2)
            if rung.temperature or rung.shortens or not greedy
        ]
        return [(1, Rung()), *rest]

    def gets_shorter(self, attempt: int) -> bool:
        """Whether an attempt after this one has a shorter prompt."""
        return any(rung.shortens for rung in self.parameters.ladder[attempt - 1 :])

    def request(
        self, style: str, key: str, attempt: int, rung: Rung, data: Mapping[str, str], image: Image | None
    ) -> Request:
        """What the engine is asked: a function of the sample, the style and the attempt alone."""
        said = self.styles[style]
        most = self.parameters.max_chars
        most = most if rung.max_chars is None else min(most, rung.max_chars)
        given = {name: as_data(data.get(name, ""), most) if most else "" for name in self.prompt_names}
        given |= {"style": style, "language": name_of(self.parameters.language)}
        prompt, system = (template.fill(given) for template in self.templates[style])
        images = () if image is None else (scaled(image, rung.image_scale),)
        turns = (*([Message("system", system)] if system else []), Message("user", prompt, images))
        return Request(
            prompt=turns if self.parameters.chat else prompt,
            images=() if self.parameters.chat else images,
            decoding=said.decoding(
                None if rung.temperature is None else max(rung.temperature, said.temperature), rung.top_p
            ),
            seed=seed_of(self.parameters.seed, key, style, attempt),
        )

    def answer(self, style: str, reply: Reply, old: str) -> Answer:
        """What the guards are asked about; half characters, which no file can hold, are replaced by U+FFFD."""
        raw = reply.text.encode("utf-8", "replace").decode() if has_halves(reply.text) else reply.text
        return Answer(
            text=tidied(raw),
            raw=raw,
            finish_reason=reply.finish_reason,
            instructions=[piece for template in self.templates[style] for piece in template.fixed],
            old=old,
            language=self.parameters.language,
            budget=self.parameters.text_tokens,
            count=counter(self.parameters.text_tokenizer),
        )

    def cells(self, answer: Answer, reply: Reply, attempts: int, flags: list[str]) -> dict[str, Any]:
        cells: dict[str, Any] = {
            "text": answer.text,
            "raw": answer.raw,
            "num_tokens": reply.completion_tokens,
            "finish_reason": reply.finish_reason,
            "attempts": attempts,
            "flags": flags,
        }
        if not self.engine_config.logprobs:
            return cells
        if reply.mean_logprob is None:
            raise BadSample(Reason.ENGINE_ERROR, "the engine gave no log-probabilities of its answer, as it promised")
        if not math.isfinite(reply.mean_logprob):
            raise BadSample(Reason.ENGINE_ERROR, f"the engine gave {reply.mean_logprob} as mean log-probability")
        return {**cells, "mean_logprob": min(0.0, reply.mean_logprob)}


def has_halves(text: str) -> bool:
    """Whether it holds surrogates, which JSON can spell and UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def scaled(image: Image, scale: float) -> Image:
    from .images import fitted

    return image if scale == 1 else fitted(image, max(1, round(scale * max(image.shape[:2]))))


def read_text(value: Value, name: str) -> str:
    """A field of the data set as text; bytes that are not UTF-8 become U+FFFD. Raises BadSample(BAD_METADATA)."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    if len(text) > MAX_OLD:
        raise BadSample(Reason.BAD_METADATA, f"{name} has {len(text)} characters; a text has at most {MAX_OLD}")
    return text.encode("utf-8", "replace").decode()


def words_in(sample: SampleCells, names: Sequence[str]) -> dict[str, str]:
    return {name: str(sample[name]) for name in names}
