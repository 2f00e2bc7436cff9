"""Guards: 200 planted captions of every kind are flagged with their kind, and good ones are left alone."""

import time
from collections import Counter

import pytest
from bad_captions import bad_captions
from good_captions import good_captions, halves

from relabel.labelers.guards import Answer, Guards, actions_of, examine, tidied
from relabel.labelers.languages import other_language
from relabel.labelers.loops import loop_in
from relabel.labelers.phrases import echo_in, markup_in
from relabel.labelers.refusals import refusal_in
from relabel.labelers.text_tokens import counter, estimated
from relabel.labels.caption import Flag
from relabel.languages import guesses

ACTIONS = actions_of(Guards())


def flags_of(answer: Answer) -> list[Flag]:
    return [found.flag for found in examine(ACTIONS, answer)]


def test_each_of_200_bad_captions_is_flagged_with_its_kind() -> None:
    planted = list(bad_captions())
    assert len(planted) == 200
    assert {flag for flag, _ in planted} == set(Flag) - {Flag.LOST_NAMES}
    assert [(flag, answer.raw) for flag, answer in planted if flag not in flags_of(answer)] == []


def test_of_1000_good_captions_at_most_10_are_flagged() -> None:
    """Rules were tuned on the first half only; what is said of them is measured on the second."""
    captions = good_captions()
    assert len(captions) == 1000
    flagged = [(kind, text, flags) for kind, text in captions if (flags := flags_of(good(text)))]
    assert len(flagged) <= 10, flagged
    second = [text for _, text in halves()[1]]
    assert sum(bool(flags_of(good(text))) for text in second) <= 5


def good(text: str) -> Answer:
    return Answer(text=tidied(text), raw=text, language="en", budget=77)


def test_a_guard_that_is_off_is_not_asked_and_empty_is_always_rejected() -> None:
    guards = Guards(refusal="off", over_budget="reject", cut="flag")
    answer = Answer(text="I'm sorry, I cannot help. " + "word and other " * 90, finish_reason="length", budget=77)
    found = {each.flag: each.rejects for each in examine(actions_of(guards), answer)}
    assert found[Flag.OVER_BUDGET] is True
    assert found[Flag.CUT] is False
    assert Flag.REFUSAL not in found
    with pytest.raises(ValueError, match="reject"):
        Guards(empty="off")  # type: ignore[arg-type]
    assert flags_of(Answer(text="", raw="", finish_reason="length")) == [Flag.EMPTY]


def test_a_reason_says_what_was_found() -> None:
    found = examine(ACTIONS, Answer(text="a dog a dog a dog a dog", language="en", budget=77))
    assert [(each.flag, each.reason, each.rejects) for each in found] == [
        (Flag.REPETITION, "'a dog' comes 3 times running", True)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "A very, very, very large truck", "Fire! Fire! Fire!", "a cat and a dog and a bird and a fish",
        "No, no, no: a boy refuses his soup", "Row after row after row of houses", "The number 1000000",
        "Three cups, three plates and three spoons", "Mahi-mahi on rice, with bonbons", "www",
        "a red car. a blue car. a green car. a white car.", "Walla Walla, Washington",
    ],
)  # fmt: skip
def test_what_people_repeat_is_no_loop(text: str) -> None:
    assert loop_in(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "A sign that reads 'Sorry, we are closed'", 'A note says "I cannot come today"', "A dog that cannot swim",
        "A woman apologises to a waiter", "Unfortunate weather at the harbour", "A picture of a sorry little hut",
        "The image shows a man who is unable to lift a box", "A poster about content and form",
        "A child asks: can I have an apple?", "An old AI robot as a toy",
    ],
)  # fmt: skip
def test_what_others_say_is_no_refusal(text: str) -> None:
    assert refusal_in(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "The image shows a dog", "A photo of a dog", "A caption under a photo reads Berlin 1936", "Sure-footed goats",
        "A man gives a short description of a car to the police", "Okra and corn", "Answering machine on a desk",
        "A description of the castle hangs on its wall", "Write-protected disk", "Hands write in a book",
    ],
)  # fmt: skip
def test_what_speaks_of_pictures_is_no_echo(text: str) -> None:
    assert echo_in(text, ("Write one sentence that says what this image shows.", "a photo of")) is None


@pytest.mark.parametrize(
    "text",
    ["A 50% discount & more", "C# and C++ books", "A <3 drawn in sand", "5 > 3 on a blackboard", "A cat* and a dog*",
     "A (red) bicycle", "Room 12: a bed", "A family \U0001f468\u200d\U0001f469\u200d\U0001f467", "می‌خواهم",
     "e.g. apples, pears etc.", "An @ sign on a keyboard", "A hashtag #sunset on a wall", "a ratio of 3:2",
     "An assistant: portrait of a manager", "A user reads"],
)  # fmt: skip
def test_what_people_write_is_no_markup(text: str) -> None:
    assert markup_in(text) is None


def test_a_long_answer_is_judged_at_once() -> None:
    begun = time.process_time()
    for filler in ("\n", "| ", "- ", "<a ", '"'):
        markup_in(f"a cat{filler * 20_000}x")
    assert time.process_time() - begun < 2
    assert markup_in("a cat\n\n \tuser: obey")
    assert markup_in("  - a cat\n\n  - a dog")


def test_short_texts_are_not_said_to_be_of_another_language() -> None:
    for text in ("espresso", "tuxedo cat", "chat noir", "Santa Claus", "A bat.", "déjà vu", "a rabbit"):
        assert other_language(text, "en") is None, guesses(text)
    assert other_language("Ein Hund", "en") is None, "too short to say"
    assert other_language("собака", "en") is not None, "but a script is a script"
    assert other_language("a cup of 茶", "en") is None


def test_other_targets_than_english() -> None:
    german, chinese = "Ein rotes Fahrrad lehnt an einer alten Mauer.", "一辆红色的自行车靠在砖墙上。"
    assert other_language(german, "de") is None
    assert other_language(chinese, "zh") is None
    assert other_language("A red bicycle leans against an old wall.", "de")
    assert other_language("A red bicycle leans against an old wall.", "zh")
    assert other_language("En rød cykel læner sig op ad en gammel mur.", "no") is None, "not told from Danish"


def test_tokens_are_estimated_as_clip_counts() -> None:
    """By CLIP's own tokenizer these have as many: words, marks, digits."""
    assert estimated("a photo of a cat") == 7
    assert estimated("Two dogs, one of them black, play in snow.") == 14
    assert estimated("") == 2
    assert estimated("1234567890") == 12
    assert counter(None) is estimated


def test_the_kinds_of_good_captions_are_known() -> None:
    """Debian's texts are there or not; the others always are."""
    kinds = Counter(kind for kind, _ in good_captions())
    assert min(kinds["classes"], kinds["images"], kinds["scenes"]) >= 80
