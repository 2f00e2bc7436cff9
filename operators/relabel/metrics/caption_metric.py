"""Caption metrics: what they share: which texts of an earlier step are measured, and the old caption beside them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import Field

from ..errors import BadSample, UsageError
from ..labelers.labeler import Batch, Labeler, Parameters
from ..labels.contract import LabelContract
from ..reasons import Reason
from ..shards.shard import Value

OLD = "old"
OLD_CAPTION = "old_caption"
"""The need that meets the old caption where a recipe says `old_caption: true`."""
TEXT = "_text"
MAX_CHARACTERS = 100_000
"""Of a text of the data set; more is no caption."""


class CaptionMetricParameters(Parameters):
    """What of an earlier step is measured."""

    captions: str = Field(default="caption", min_length=1)
    """The label that holds the captions: an earlier step of the recipe."""
    styles: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Which of its styles; default: all."""
    old_caption: bool | str = False
    """The field of the data set with the old caption, as `source.fields` names it; true: `old_caption`. Not needed
    where the label keeps the old caption itself."""


P = TypeVar("P", bound=CaptionMetricParameters)


@dataclasses.dataclass(frozen=True)
class Texts:
    """Where the texts of a label lie."""

    styles: Mapping[str, str]
    """Style -> column; a plain text label has one style, called as its column's suffix is."""
    old: str | None
    """The column of the old caption, where the label keeps it."""


def texts_of(contract: LabelContract) -> Texts:
    """The text columns of a label: `<label>_<style>_text`, or where there is none such, every column of text."""
    names = [column.name for column in contract.columns if column.dtype == "string"]
    suffixes = [name.removeprefix(f"{contract.name}_") for name in names]
    old = f"{contract.name}_{OLD}" if OLD in suffixes else None
    spoken = [each for each in suffixes if each.endswith(TEXT)] or [each for each in suffixes if each != OLD]
    return Texts({each.removesuffix(TEXT): f"{contract.name}_{each}" for each in spoken}, old)


class CaptionMetric(Labeler[P]):
    """A metric of captions; a subclass says what it measures."""

    needs: tuple[str, ...] = ()

    def __init__(self, parameters: P, label: str = "") -> None:
        super().__init__(parameters, label)
        self.reads = (parameters.captions,)
        named = parameters.old_caption
        self.old_field = (OLD_CAPTION if named is True else named) or ""
        self.wants = (self.old_field,) if self.old_field else ()

    @property
    def texts(self) -> Texts:
        """What is measured; raises UsageError where the label that is read has no such texts."""
        name, wanted = self.parameters.captions, self.parameters.styles
        if name not in self.inputs:
            raise UsageError(f"{self.label} measures the label {name!r}: put the step that writes it before this one.")
        found = texts_of(self.inputs[name])
        unknown = sorted(set(wanted or ()) - found.styles.keys())
        if unknown or not found.styles:
            raise UsageError(
                f"{self.label} measures the styles {', '.join(unknown) or 'of'} of the label {name!r}, which has: "
                f"{', '.join(found.styles) or 'no text'}. Correct `captions` or `styles`."
            )
        if OLD in found.styles:
            raise UsageError(f"{self.label} cannot measure a style called {OLD!r}: rename it in {name!r}.")
        styles = found.styles if wanted is None else {style: found.styles[style] for style in wanted}
        return Texts(styles, found.old)

    @property
    def measures_old(self) -> bool:
        """Whether the old caption is measured, too."""
        return bool(self.old_field) or self.texts.old is not None

    def spoken(self, batch: Batch) -> dict[str, Sequence[str]]:
        """Style -> text of every row; under `old` the old captions, where they are measured: "" where there is none."""
        columns = {style: batch[column] for style, column in self.texts.styles.items()}
        if self.measures_old:
            columns[OLD] = batch[(self.old_field and OLD) or str(self.texts.old)]
        return {name: [str(text) for text in texts] for name, texts in columns.items()}


def read_text(value: Value, name: str) -> str:
    """A field of the data set as text; bytes that are not UTF-8 become U+FFFD. Raises BadSample(BAD_METADATA)."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    if len(text) > MAX_CHARACTERS:
        raise BadSample(Reason.BAD_METADATA, f"{name} has {len(text)} characters; a text has at most {MAX_CHARACTERS}")
    return text.encode("utf-8", "replace").decode()
