"""Tries: answers made of given texts: one or several, none twice, and one that begins another is reachable."""

import itertools
from collections.abc import Iterator

import pytest

from relabel.errors import UsageError
from relabel.labelers.engines.answers import Answer
from relabel.labelers.engines.protocol import Decoding, Request
from relabel.labelers.engines.tries import Choices, Path, choices_of

END, STOP = 0, 1


class Letters:
    """A tokenizer of which every letter is a token; a line break is STOP."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [STOP if letter == "\n" else ord(letter) for letter in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


def made(
    choices: tuple[str, ...], most: int = 1, stop: tuple[str, ...] = (), ends: tuple[int, ...] = (END,)
) -> Choices:
    request = Request(prompt="", decoding=Decoding(max_tokens=60, stop=stop), choices=choices, most=most)
    return choices_of(request, Letters(), ends)


def answers(choices: Choices) -> Iterator[tuple[str, ...]]:
    """Every answer that can be given."""
    waiting: list[list[int]] = [[]]
    while waiting:
        tokens = waiting.pop()
        path = Path(choices)
        if tokens and [path.take(token) for token in tokens][-1]:
            yield tuple(path.chosen)
            continue
        allowed = path.allowed()
        assert allowed, "an answer is never at a dead end"
        assert len(set(allowed)) == len(allowed)
        waiting += [[*tokens, token] for token in allowed]


@pytest.mark.parametrize("stop", [(), ("\n",)])
def test_every_answer_is_reachable_and_no_other(stop: tuple[str, ...]) -> None:
    names = ("red", "red fox", "redder", "owl")
    for most in (1, 2, 3, 4, 9):
        found = list(answers(made(names, most, stop)))
        wanted = {chosen for size in range(1, min(most, 4) + 1) for chosen in itertools.permutations(names, size)}
        assert set(found) == wanted
        assert not stop or len(found) >= len(wanted)


def test_a_text_that_was_given_is_gone_and_what_it_begins_is_not() -> None:
    path = Path(made(("red", "red fox"), 2))
    for letter in "red":
        assert not path.take(ord(letter))
    assert sorted(path.allowed()) == sorted([END, ord(" "), ord(";")])
    path.take(ord(";"))
    for letter in " red":
        assert path.allowed() == [ord(letter)]
        path.take(ord(letter))
    assert path.allowed() == [ord(" ")], "neither the end nor a separator: `red` was said"
    assert [path.take(ord(letter)) for letter in " fox"] == [False, False, False, True]
    assert path.chosen == ["red", "red fox"]


def test_a_text_with_a_space_before_it_follows_like_any_other() -> None:
    path = Path(made((" a", " b"), 2))
    assert [path.take(ord(letter)) for letter in " b; a"] == [False, False, False, False, True]
    assert path.chosen == [" b", " a"]


def test_what_cannot_be_told_apart_is_refused() -> None:
    for choices, says in ((("a", "a; b"), "goes on with what ends"), (("a", "a\nb"), "goes on with what ends")):
        with pytest.raises(UsageError, match=says):
            made(choices, 2, ("\n",))
    with pytest.raises(UsageError, match="no end token"):
        made(("a", "b"), 2, (), ())
    assert set(answers(made(("a", "b"), 1, (), ()))) == {("a",), ("b",)}


def test_an_answer_says_what_was_chosen_also_where_its_tokens_ran_out() -> None:
    request = Request(prompt="", decoding=Decoding(max_tokens=6, stop=("\n",)), choices=("red", "fox"), most=2)
    ended = Answer(request, (5,), Letters(), frozenset({END}), choices_of(request, Letters(), (END,)))
    assert [ended.take(token, -0.1) for token in (*map(ord, "fox"), STOP)] == [False, False, False, True]
    reply = ended.reply(0.0)
    assert (reply.text, reply.chosen, reply.finish_reason, reply.completion_tokens) == ("fox", ("fox",), "stop", 4)
    assert len(reply.token_ids or ()) == 3
    cut = ended.anew()
    for token in map(ord, "fox; r"):
        cut.take(token, -0.1)
    assert (cut.reply(0.0).text, cut.reply(0.0).finish_reason) == ("fox", "length")
