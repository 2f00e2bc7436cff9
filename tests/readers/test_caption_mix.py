"""Caption mix: shares, picks that stay when shards do not, and what stands in for an empty text."""

from typing import Any

import pytest

from relabel import caption_mix
from relabel.errors import BadSample, Refused, UnknownName, UsageError
from relabel.labels.caption import Caption, Text, caption_contract
from relabel.labels.kinds import text
from relabel.readers.draws import picks

STYLES = ("short", "long")
KEYS = [f"{number:08d}" for number in range(40_000)]


def caption(old: str | None = "IMG_1", **texts: str) -> Caption:
    made = {style: Text(said, said, 1, "stop", None, 1, ()) for style, said in texts.items()}
    return Caption(made, old)


def sample(pick: int, found: Caption, **more: Any) -> dict[str, Any]:
    return {"__key__": "k", "__pick__": pick, "caption": found, **more}


def contract(old: bool = True) -> Any:
    return caption_contract("caption", STYLES, logprobs=False, reproducible=True, old=old)


def test_half_the_keys_get_each_and_half_of_them_another_one_next_epoch() -> None:
    mix = caption_mix({"alt": 0.5, "short": 0.5})
    epochs = [[mix.pick(pick(key)) for key in KEYS] for pick in (picks(0, epoch, ["f"]) for epoch in (0, 1))]
    shares = [epoch.count("alt") / len(KEYS) for epoch in epochs]
    assert shares == pytest.approx([0.5, 0.5], abs=0.01)
    flipped = sum(one != two for one, two in zip(*epochs, strict=True)) / len(KEYS)
    assert flipped == pytest.approx(0.5, abs=0.01)


def test_shares_follow_weights_that_need_not_sum_to_one() -> None:
    mix = caption_mix({"alt": 2.0, "short": 1.0, "long": 1.0, "none": 0.0})
    pick = picks(3, 0, ["f"])
    found = [mix.pick(pick(key)) for key in KEYS[:10_000]]
    assert [found.count(style) / 10_000 for style in mix.weights] == pytest.approx([0.5, 0.25, 0.25, 0], abs=0.02)


def test_picks_are_those_of_the_key_whatever_shard_it_lies_in() -> None:
    """Cut anew, the samples have another shard, another place and another seed; the pick knows none of them."""
    mix = caption_mix({"alt": 0.5, "short": 0.5})
    made = {"short": "a dog"}
    before = {key: mix({**sample(picks(0, 0, ["f"])(key), caption(**made)), "__shard__": "a.tar", "__seed__": 1})
              for key in KEYS[:200]}  # fmt: skip
    after = {key: mix({**sample(picks(0, 0, ["f"])(key), caption(**made)), "__shard__": "b.tar", "__seed__": 2})
             for key in reversed(KEYS[:200])}  # fmt: skip
    assert {key: each["caption"] for key, each in before.items()} == {
        key: each["caption"] for key, each in after.items()
    }
    assert {each["caption_style"] for each in before.values()} == {"alt", "short"}


def test_the_text_takes_the_place_of_the_label() -> None:
    found = caption_mix({"short": 1.0})(sample(5, caption(short="a dog", long="a dog on a mat")))
    assert (found["caption"], found["caption_style"]) == ("a dog", "short")


def test_the_old_text_comes_from_the_label_or_from_a_field() -> None:
    given = sample(5, caption(short="a dog"), txt=b" an old  text \n")
    assert caption_mix({"alt": 1.0})(given)["caption"] == "IMG_1"
    assert caption_mix({"alt": 1.0}, alt="txt")(given)["caption"] == "an old  text"


def test_an_empty_text_gives_way_in_the_order_that_is_stated() -> None:
    empty = sample(5, caption("", short="a dog", long="a long dog"))
    assert caption_mix({"alt": 1.0, "short": 0.0, "long": 0.0})(empty)["caption_style"] == "short"
    assert caption_mix({"alt": 1.0}, fallback=("long", "short"))(empty)["caption_style"] == "long"
    missing = sample(5, caption(None, long="a long dog"))
    assert caption_mix({"alt": 0.5, "short": 0.5, "long": 0.0})(missing)["caption_style"] == "long"
    with pytest.raises(BadSample, match="'k' has no text in any of alt, short"):
        caption_mix({"alt": 1.0, "short": 0.0})(sample(5, caption("  ")))


def test_styles_are_checked_when_the_data_set_is_made() -> None:
    caption_mix({"alt": 0.5, "short": 0.5}).check({"caption": contract()})
    with pytest.raises(UnknownName, match="unknown style 'shrot'; did you mean 'short'"):
        caption_mix({"shrot": 1.0}).check({"caption": contract()})
    with pytest.raises(UnknownName, match="label"):
        caption_mix({"short": 1.0}, label="captions").check({"caption": contract()})
    with pytest.raises(Refused, match="keeps no old caption"):
        caption_mix({"alt": 1.0}).check({"caption": contract(old=False)})
    caption_mix({"alt": 1.0}, alt="txt").check({"caption": contract(old=False)})
    with pytest.raises(Refused, match="expected captions"):
        caption_mix({"short": 1.0}).check({"caption": text("caption")})


@pytest.mark.parametrize(
    "weights", [{}, {"alt": 0.0}, {"alt": -1.0, "short": 2.0}, {"alt": float("nan")}, {"alt": float("inf")}]
)
def test_weights_that_are_none_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="weights"):
        caption_mix(weights)


def test_a_sample_without_pick_or_caption_is_refused() -> None:
    with pytest.raises(UsageError, match="`__pick__`"):
        caption_mix({"short": 1.0})({"caption": caption(short="a dog")})
    with pytest.raises(UsageError, match="got str"):
        caption_mix({"short": 1.0})({"caption": "a dog", "__pick__": 1})
