"""Captions: which of its texts a sample is trained on this epoch (arXiv 2310.16656). New texts are mixed with old ones,
for they replace nothing: what a captioner does not know (names, places) stands in the old one only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadSample, Refused, UnknownName, UsageError
from ..labels.caption import Caption, has_old
from ..labels.contract import LabelContract
from ..reasons import Reason

ALT = "alt"
"""The old caption."""


class CaptionMix:
    """One text per sample, picked by weight (see `caption_mix`)."""

    def __init__(
        self, weights: Mapping[str, float], label: str = "caption", alt: str | None = None,
        fallback: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        total = sum(weights.values())
        if not weights or not all(0 <= weight < float("inf") for weight in weights.values()) or not total > 0:
            raise UsageError(
                f"weights must be numbers of at least 0, one of them above, by style, got {dict(weights)}."
            )
        self.weights = {style: weight / total for style, weight in weights.items()}
        self.label, self.alt = label, alt
        self.fallback = tuple(self.weights if fallback is None else fallback)

    def check(self, contracts: Mapping[str, LabelContract]) -> None:
        """Raises UnknownName or Refused for a style that the label has not."""
        if self.label not in contracts:
            raise UnknownName("label", self.label, contracts, "Name a caption among the wanted columns.")
        contract = contracts[self.label]
        if contract.kind != "caption" or contract.styles is None:
            raise Refused(f"the label {self.label!r} is of kind {contract.kind!r} without styles, expected captions.")
        known = [*contract.styles, ALT]
        for style in (*self.weights, *self.fallback):
            if style not in known:
                raise UnknownName("style", style, known)
        if ALT in (*self.weights, *self.fallback) and self.alt is None and not has_old(contract):
            raise Refused(
                f"the label {self.label!r} keeps no old caption. Say which field of the data set holds it (alt='txt'), "
                "or label with `old_caption: true`."
            )

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        caption = sample.get(self.label)
        if not isinstance(caption, Caption) or "__pick__" not in sample:
            raise UsageError(
                f"caption_mix needs a caption in sample[{self.label!r}] and `__pick__`, got "
                f"{type(caption).__name__}, fields {', '.join(map(str, sample))}. `release.dataset` gives both."
            )
        picked = self.pick(int(sample["__pick__"]))
        for style in (picked, *self.fallback):
            if text := self._text(sample, caption, style):
                return {**sample, self.label: text, f"{self.label}_style": style}
        tried = ", ".join(dict.fromkeys((picked, *self.fallback)))
        raise BadSample(Reason.UNUSABLE_TEXT, f"sample {sample.get('__key__')!r} has no text in any of {tried}")

    def pick(self, pick: int) -> str:
        """The style that a `__pick__`, evenly spread in [0, 2**63), falls on."""
        place = pick * 2.0**-63
        for style, weight in self.weights.items():
            place -= weight
            if place < 0:
                return style
        return next(style for style in reversed(self.weights) if self.weights[style] > 0)

    def _text(self, sample: Mapping[str, Any], caption: Caption, style: str) -> str:
        if style == ALT:
            found = caption.old if self.alt is None else sample.get(self.alt)
        else:
            found = caption.texts[style].text if style in caption.texts else ""
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
        return text.strip() if isinstance(text, str) else ""


def caption_mix(
    weights: Mapping[str, float], label: str = "caption", alt: str | None = None, fallback: Sequence[str] | None = None
) -> CaptionMix:
    """A transform that makes `label` (a Caption) the text of one style, and adds `<label>_style`.

    `weights` by style need not sum to 1; `alt` is the old caption: the one that the label keeps, or the field of the
    data set that `alt` names. The pick is a function of the training job's seed, the epoch, what the labels mean and
    the sample's key (`__pick__`): it does not change when the data set is cut into other shards, and is drawn anew
    every epoch. Where the picked text is missing or empty, the first of `fallback` that is not is taken (default: the
    styles in the order of `weights`). Raises BadSample where all are.
    """
    return CaptionMix(weights, label, alt, fallback)
