"""Tries: one of given texts, or several of them one after the other, none twice, as paths of token ids.

A text may begin another one: where it ends, its longer sibling, the separator and the end are all allowed (PTEC, arXiv
2309.12075: trie decoding with two terminals per label). What was given is taken out by a bit, the trie stays one.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ...errors import UsageError
from .protocol import SEPARATOR, Request


@dataclasses.dataclass
class Trie:
    """Texts as paths of token ids; a text may begin another one."""

    children: dict[int, "Trie"] = dataclasses.field(default_factory=dict)
    text: str | None = None
    """The text that ends here."""
    bit: int = 0
    """Of that text: 1 << its number."""
    below: int = 0
    """Bits of all texts that end here or further on."""

    def add(self, ids: Sequence[int], text: str, number: int) -> None:
        node = self
        node.below |= 1 << number
        for each in ids:
            node = node.children.setdefault(each, Trie())
            node.below |= 1 << number
        if node.text is not None:
            raise UsageError(f"the choices {node.text!r} and {text!r} are the same tokens to this model. Drop one.")
        node.text, node.bit = text, 1 << number

    def nodes(self) -> Iterator["Trie"]:
        yield self
        for child in self.children.values():
            yield from child.nodes()


@dataclasses.dataclass(frozen=True)
class Choices:
    """What an answer may be made of."""

    first: Trie
    next: Trie
    """Of texts that follow the separator: behind a space."""
    separator: tuple[int, ...]
    end_ids: frozenset[int]
    """Any of them ends an answer where a text ends."""
    most: int


def choices_of(request: Request, tokenizer: Any, end_ids: Collection[int]) -> Choices:
    """The request's choices as the tokenizer cuts them; raises UsageError where one could not be given as an answer.

    A stop text of the request ends an answer as the model's own end token does.
    """
    texts, most = request.choices or (), request.decoding.max_tokens

    def ids_of(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    ends = frozenset(end_ids) | {ids[0] for stop in request.decoding.stop if (ids := ids_of(stop))}
    first, following = trie_of(texts, ids_of, most), Trie()
    separator: tuple[int, ...] = ()
    if request.most > 1:
        following = trie_of([f" {text.lstrip()}" for text in texts], ids_of, most, texts)
        separator = tuple(ids_of(SEPARATOR))
    tries = [first, following]
    inner = [node for trie in tries for node in trie.nodes() if node.text is not None and node.children]
    if not texts or (not ends and (inner or request.most > 1)):
        raise UsageError("expected at least one choice, none the beginning of another where the model has no end token")
    if any(node.children.keys() & {*separator[:1], *ends} for node in inner):
        raise UsageError(
            f"a choice goes on with what ends another one ({SEPARATOR!r} or an end). Rename it: {', '.join(texts[:9])}"
        )
    return Choices(first, following, separator, ends, min(request.most, len(texts)))


def trie_of(texts: Sequence[str], ids_of: Any, most: int, names: Sequence[str] = ()) -> Trie:
    """The texts, which go by `names` where these are given."""
    root = Trie()
    for number, (text, name) in enumerate(zip(texts, names or texts, strict=True)):
        ids = ids_of(text)
        if not ids or len(ids) > most:
            raise UsageError(
                f"the choice {name!r} has {len(ids)} tokens, expected 1 to max_tokens ({most}). Change it, or raise "
                "max_tokens."
            )
        root.add(ids, name, number)
    return root


class Path:
    """Where one answer stands."""

    def __init__(self, choices: Choices) -> None:
        self.choices, self.chosen = choices, list[str]()
        self._node, self._left, self._joint = choices.first, choices.first.below, list[int]()

    @property
    def _ends_here(self) -> bool:
        """Whether a text does that was not given before."""
        return bool(self._node.bit & self._left)

    @property
    def _may_go_on(self) -> bool:
        """Whether another text may follow the one that ends here."""
        return len(self.chosen) + 1 < self.choices.most and bool(self._left & ~self._node.bit)

    def allowed(self) -> list[int]:
        """The next tokens that lead to an answer; never none."""
        if self._joint:
            return self._joint[:1]
        found = [token for token, child in self._node.children.items() if child.below & self._left]
        if self._ends_here:
            found += sorted(self.choices.end_ids)
            found += self.choices.separator[:1] if self._may_go_on else ()
        return found

    def take(self, token: int) -> bool:
        """One of those that are allowed; whether the answer is done with it."""
        if self._joint:
            self._joint.pop(0)
            return False
        if self._ends_here and token in self.choices.end_ids:
            return self.close()
        if self._ends_here and self._may_go_on and token == self.choices.separator[0]:
            self.close()
            self._node, self._joint = self.choices.next, list(self.choices.separator[1:])
            return False
        self._node = self._node.children[token]
        longer = any(child.below & self._left for child in self._node.children.values())
        return self._ends_here and not longer and not self._may_go_on and self.close()

    def close(self) -> bool:
        """Takes the text that ends here, if one does."""
        if self._ends_here and self._node.text is not None:
            self.chosen.append(self._node.text)
            self._left &= ~self._node.bit
        return True
