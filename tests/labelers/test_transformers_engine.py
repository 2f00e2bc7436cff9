"""The transformers engine: an answer depends on its request alone, and is what the bare model says."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_language_models import save_blip, save_captioner, save_llama, save_llava

from relabel.errors import BadSample, DeviceFailed, DeviceFull, Refused, UsageError
from relabel.labelers.engines.in_process import InProcess
from relabel.labelers.engines.protocol import Decoding, Message, Reply, Request, Scored
from relabel.labelers.engines.spending import plus
from relabel.labelers.engines.transformers_engine import TransformersConfig
from relabel.reasons import Reason

ROWS = 4
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llama": save_llama, "llava": save_llava, "blip": save_blip, "captioner": save_captioner,
}  # fmt: skip
PHRASES = [
    "a red fox", "the", "describe the small old owl on the tree and then", "two bee sits under a blue mat near",
    "caption of a cat", "one two three four five six seven eight nine ten one two three four five six seven",
]  # fmt: skip
DECODINGS = [
    Decoding(max_tokens=7),
    Decoding(max_tokens=7, temperature=0.9),
    Decoding(max_tokens=12, temperature=1.5, top_p=0.8),
    Decoding(max_tokens=12, temperature=1.2, top_k=6, repetition_penalty=1.3),
    Decoding(max_tokens=12, repetition_penalty=1.5, stop=("cat", "old owl")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in FAMILIES.items()}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> Iterator[dict[str, InProcess]]:
    opened = {name: open_engine(folder) for name, folder in folders.items()}
    yield opened
    for engine in opened.values():
        asyncio.run(engine.close())


def open_engine(folder: Path, rows: int = ROWS, **fields: Any) -> InProcess:
    config = TransformersConfig(model=str(folder), **fields)
    engine = config.open(config.inspect(), "cpu", compute_batch=rows, threads=1)
    assert isinstance(engine, InProcess)
    return engine


def picture(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, 256, (*drawn.integers(20, 60, 2), 3), np.uint8)


def requests_for(name: str) -> list[Request]:
    """Prompts of many lengths, with and without templates, greedy and drawn."""
    requests = []
    for number, text in enumerate(PHRASES * 3):
        decoding, images = DECODINGS[number % len(DECODINGS)], (picture(number),)
        if name == "llama":
            prompt: Any = text if number % 2 else (Message("user", text),)
            requests.append(Request(prompt=prompt, decoding=decoding, seed=number))
        elif name == "llava":
            chat = (Message("system", "describe the"), Message("user", text, images[: number % 3 % 2]))
            requests.append(Request(prompt=chat, decoding=decoding, seed=number))
        else:
            requests.append(Request(prompt=" ".join(text.split()[: number % 3]), images=images, decoding=decoding))
    return requests


def timeless(reply: Reply) -> Reply:
    return dataclasses.replace(reply, seconds=0.0)


def ask(engine: InProcess, requests: Sequence[Request], delays: Sequence[float] = ()) -> list[Reply]:
    async def one(number: int, request: Request) -> Reply:
        await asyncio.sleep(delays[number] if delays else 0)
        return timeless(await engine.generate(request))

    async def everything() -> list[Reply]:
        return await asyncio.gather(*[one(number, request) for number, request in enumerate(requests)])

    return asyncio.run(everything())


def score(engine: InProcess, request: Request, texts: Sequence[str]) -> list[Scored]:
    return asyncio.run(engine.score(request, texts))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_depends_on_its_request_alone(engines: dict[str, InProcess], name: str) -> None:
    """Bit for bit: whatever the order, the neighbours, the moment of arrival, the place where a run is resumed."""
    engine, requests = engines[name], requests_for(name)
    together = ask(engine, requests)
    assert len({reply.text for reply in together}) > len(requests) / 3, "answers differ, so that they can be mixed up"
    assert ask(engine, requests[::-1])[::-1] == together
    assert ask(engine, requests[5:]) == together[5:]
    alone = [ask(engine, [request])[0] for request in requests[:4]]
    assert alone == together[:4]
    delays = [random.Random(number).uniform(0, 0.2) for number in range(len(requests))]
    assert ask(engine, requests, delays) == together


@pytest.mark.parametrize("name", FAMILIES)
def test_a_greedy_answer_is_that_of_the_bare_model(engines: dict[str, InProcess], name: str) -> None:
    engine, network = engines[name], engines[name].model.network
    pixels = picture(3)
    if name == "llama":
        request = Request(prompt=PHRASES[3], decoding=Decoding(max_tokens=9))
        inputs = engine.model.reading.tokenizer(PHRASES[3], return_tensors="pt")
    elif name == "llava":
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PHRASES[3]}]}]
        request = Request(prompt=(Message("user", PHRASES[3], (pixels,)),), decoding=Decoding(max_tokens=9))
        processor = engine.model.reading.processor
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = processor(text=text, images=[pixels], return_tensors="pt")
    else:
        request = Request(prompt="", images=(pixels,), decoding=Decoding(max_tokens=9))
        processor = getattr(engine.model.reading.processor, "image_processor", engine.model.reading.processor)
        inputs = processor(images=[pixels], return_tensors="pt")
    (reply,) = ask(engine, [request])
    options: dict[str, Any] = {"eos_token_id": [*engine.model.end_ids]} if name != "blip" else {}
    with torch.inference_mode():
        found = network.generate(**inputs, max_new_tokens=9, do_sample=False, **options)
    given = [token for token in found[0].tolist()[-len(reply.logprobs or ()) :] if token not in engine.model.end_ids]
    assert list(reply.token_ids or ()) == given
    assert reply.completion_tokens == len(reply.logprobs or ())


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_one_pass_over_prompt_and_text(engines: dict[str, InProcess], name: str) -> None:
    engine, model = engines[name], engines[name].model
    texts = ["red fox", "blue", "a small cat sits on the mat", "", "the"]
    request = next(each for each in requests_for(name) if each.all_images or name == "llama")
    found = score(engine, request, texts)
    assert [scored.num_tokens for scored in found] == [2, 1, 7, 0, 1]
    for text, scored in zip(texts, found, strict=True):
        assert scored.logprob == pytest.approx(naive(model, request, text), abs=1e-4)


def naive(model: Any, request: Request, text: str) -> float:
    from relabel.labelers.engines.encoding import encode, stacked

    prompt = encode(model.reading, request)
    inputs = stacked(model, [prompt], len(prompt.ids))
    words = model.reading.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt.ids, *words]])
    with torch.inference_mode():
        if model.reading.model_type == "blip":
            images = model.network.vision_model(pixel_values=inputs["pixel_values"])[0]
            logits = model.network.text_decoder(input_ids=ids, encoder_hidden_states=images).logits
        elif model.reading.family == "captioner":
            logits = model.network(pixel_values=inputs["pixel_values"], decoder_input_ids=ids).logits
        else:
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            logits = model.network(**inputs).logits
    logprobs = logits[0].float().log_softmax(1)
    return sum(float(logprobs[len(prompt.ids) - 1 + place, word]) for place, word in enumerate(words))


def test_scores_depend_on_no_neighbour(engines: dict[str, InProcess]) -> None:
    engine, texts = engines["llama"], ["red fox", "blue owl", "cat"]
    requests = [Request(prompt=text, decoding=Decoding()) for text in PHRASES]

    async def everything() -> list[list[Scored]]:
        return await asyncio.gather(*[engine.score(request, texts) for request in requests])

    assert asyncio.run(everything()) == [score(engine, request, texts) for request in requests]


def test_logprobs_are_those_of_the_whole_distribution(engines: dict[str, InProcess]) -> None:
    """Before temperature, truncation and penalties; the score of the answer's text is their sum."""
    engine = engines["llama"]
    request = Request(prompt=PHRASES[0], decoding=DECODINGS[3], seed=5)
    (reply,) = ask(engine, [request])
    assert reply.finish_reason == "length"
    assert "<" not in reply.text
    (scored,) = score(engine, request, [reply.text])
    if scored.num_tokens == reply.completion_tokens:  # no special token in the middle
        assert sum(reply.logprobs or ()) == pytest.approx(scored.logprob, abs=1e-4)


def test_an_answer_ends_at_the_end_token_a_stop_text_or_the_budget(engines: dict[str, InProcess]) -> None:
    engine = engines["llama"]
    free = Decoding(max_tokens=20, temperature=1.5)
    replies = ask(engine, [Request(prompt="the", decoding=free, seed=seed) for seed in range(40)])
    ended = [reply for reply in replies if reply.finish_reason == "stop"]
    assert ended
    assert all(reply.completion_tokens == len(reply.token_ids or ()) + 1 for reply in ended)
    assert all(reply.completion_tokens == 20 for reply in replies if reply.finish_reason == "length")
    long = next(reply for reply in replies if len(reply.text.split()) > 6)
    stop = " ".join(long.text.split()[3:5])
    stopped = free.model_copy(update={"stop": (stop, "no such text")})
    (cut,) = ask(engine, [Request(prompt="the", decoding=stopped, seed=replies.index(long))])
    assert cut.finish_reason == "stop"
    assert cut.text == long.text[: long.text.index(stop)]
    assert (cut.logprobs or ()) == (long.logprobs or ())[: cut.completion_tokens]


def test_the_answer_is_one_of_the_choices(engines: dict[str, InProcess]) -> None:
    """Also one that begins another one."""
    engine, choices = engines["llama"], ("red", "red fox", "red fox sits", "owl")
    decoding = Decoding(max_tokens=4, temperature=4.0)
    requests = [Request(prompt="a", decoding=decoding, seed=seed, choices=choices) for seed in range(60)]
    assert {reply.text for reply in ask(engine, requests)} == set(choices)
    (likeliest,) = ask(engine, [Request(prompt="a", decoding=Decoding(max_tokens=4), choices=("owl", "bee"))])
    first, second = score(engine, requests[0], ["owl", "bee"])
    assert likeliest.text == ("owl" if first.logprob > second.logprob else "bee")
    with pytest.raises(UsageError, match="max_tokens"):
        ask(engine, [Request(prompt="a", decoding=Decoding(max_tokens=2), choices=("red fox sits",))])


def test_an_early_answer_does_not_wait_for_its_batch(engines: dict[str, InProcess]) -> None:
    engine, done = engines["llama"], []

    async def one(request: Request, name: str) -> None:
        await engine.generate(request)
        done.append(name)

    async def both() -> None:
        decoding = Decoding(max_tokens=100, repetition_penalty=1.2)
        short = Request(prompt="a", decoding=decoding, choices=("red",))
        await asyncio.gather(one(Request(prompt="the", decoding=decoding), "long"), one(short, "short"))

    asyncio.run(both())
    assert done == ["short", "long"]


def test_what_does_not_fit_is_refused_alone(engines: dict[str, InProcess]) -> None:
    engine = engines["llama"]
    fitting = Request(prompt="a " * 100, decoding=Decoding(max_tokens=28))
    ask(engine, [fitting])
    with pytest.raises(BadSample) as caught:
        ask(engine, [dataclasses.replace(fitting, decoding=Decoding(max_tokens=29))])
    assert caught.value.reason == Reason.PROMPT_TOO_LONG
    with pytest.raises(UsageError, match="JSON schema"):
        ask(engine, [dataclasses.replace(fitting, schema={"type": "object"})])
    with pytest.raises(UsageError, match="reads no images"):
        ask(engine, [dataclasses.replace(fitting, images=(picture(0),))])
    with pytest.raises(UsageError, match="exactly one image"):
        ask(engines["blip"], [fitting])
    with pytest.raises(UsageError, match="no chat template"):
        ask(engines["captioner"], [Request(prompt=(Message("system", "a"), Message("user", "a")), decoding=Decoding())])


class Faulty:
    """A network that raises when it meets this token."""

    def __init__(self, network: Any, token: int, error: BaseException) -> None:
        self.network, self.token, self.error = network, token, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def generate(self, **inputs: Any) -> Any:
        if (inputs["input_ids"] == self.token).any():
            raise self.error
        return self.network.generate(**inputs)


def faulty(folder: Path, error: BaseException) -> InProcess:
    engine = open_engine(folder)
    token = engine.model.reading.tokenizer("owl")["input_ids"][0]
    engine.model = dataclasses.replace(engine.model, network=Faulty(engine.model.network, token, error))
    return engine


async def outcomes(asked: Sequence[Awaitable[Reply]]) -> list[Reply | BaseException]:
    return await asyncio.gather(*asked, return_exceptions=True)


def test_a_request_that_breaks_its_batch_fails_alone(folders: dict[str, Path], engines: dict[str, InProcess]) -> None:
    requests = [Request(prompt=text, decoding=Decoding(max_tokens=6)) for text in ("a cat", "an owl", "a fox", "a bee")]
    whole = ask(engines["llama"], requests)
    engine = faulty(folders["llama"], ValueError("broken"))
    found = asyncio.run(outcomes([engine.generate(request) for request in requests]))
    assert isinstance(found[1], BadSample)
    assert found[1].reason == Reason.ENGINE_ERROR
    assert "broken" in found[1].detail
    answered = [timeless(each) for each in found if isinstance(each, Reply)]
    assert answered == [whole[0], *whole[2:]]
    assert engine.spent()["requests"] == 3, "one that is answered at the second try is one"
    asyncio.run(engine.close())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), DeviceFull, "compute_batch"),
        (MemoryError(), DeviceFull, "compute_batch"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceFailed, "illegal memory"),
        (KeyboardInterrupt(), DeviceFailed, "thread has ended"),
    ],
    ids=["device memory", "memory", "device", "thread"],
)
def test_a_lost_engine_answers_everybody(
    folders: dict[str, Path], error: BaseException, expected: type[DeviceFailed], says: str
) -> None:
    """Those in the batch, those that wait, and those that come later."""
    engine = faulty(folders["llama"], error)
    requests = [Request(prompt=f"owl {'a ' * number}", decoding=Decoding(max_tokens=6)) for number in range(40)]
    found = asyncio.run(outcomes([engine.generate(request) for request in requests]))
    assert {type(each) for each in found} == {expected}
    assert says in str(found[-1])
    with pytest.raises(expected):
        ask(engine, requests[:1])
    asyncio.run(engine.close())


def test_cancelled_requests_cost_nothing(engines: dict[str, InProcess]) -> None:
    engine = engines["llama"]

    async def given_up() -> Reply:
        tasks = [asyncio.ensure_future(engine.generate(each)) for each in requests_for("llama")]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await engine.generate(requests_for("llama")[0])

    assert timeless(asyncio.run(given_up())) == ask(engine, requests_for("llama")[:1])[0]


def test_a_model_whose_rows_are_not_independent_is_refused(folders: dict[str, Path], monkeypatch: Any) -> None:
    from relabel.labelers.engines import proofs

    def mixed(model: Any, batch: Any, place: int, pad_to: int) -> Any:
        return real(model, batch, place, pad_to), hash(batch[0].ids)

    real = proofs._answer
    monkeypatch.setattr(proofs, "_answer", mixed)
    with pytest.raises(Refused, match="depend on what else is asked"):
        open_engine(folders["llama"])
    engine = open_engine(folders["llama"], exact=False)
    assert not engine.reproducible
    asyncio.run(engine.close())
    assert TransformersConfig(model="x", exact=False).reproducible is False


def test_a_prompt_that_fills_its_length_is_computed_as_its_neighbours_are(engines: dict[str, InProcess]) -> None:
    """Among prompts without padding transformers leaves the mask out."""
    engine = engines["llama"]
    prompts = [Request(prompt=" ".join(["owl"] * words), decoding=Decoding(max_tokens=6))
               for words in (7, 8, 8, 8, 9, 15, 16)]  # fmt: skip
    together = ask(engine, prompts)
    assert [ask(engine, [request])[0] for request in prompts] == together


def test_half_precision_is_reproducible_too(folders: dict[str, Path]) -> None:
    engine, requests = open_engine(folders["llava"], dtype="bf16"), requests_for("llava")
    together = ask(engine, requests)
    assert ask(engine, requests[::-1])[::-1] == together
    asyncio.run(engine.close())


def test_what_was_used_is_told(folders: dict[str, Path]) -> None:
    engine = open_engine(folders["llama"])
    replies = ask(engine, [Request(prompt="a cat", decoding=Decoding(max_tokens=3)) for _ in range(6)])
    spent = engine.spent()
    assert spent["requests"] == 6
    assert spent["completion_tokens"] == sum(reply.completion_tokens for reply in replies)
    assert spent["prompt_tokens"] == 12
    assert (spent["batches"], spent["batch_rows"]) == (2, 8)
    assert plus(spent, spent)["cost"] == "0", "money is text"
    asyncio.run(engine.close())
