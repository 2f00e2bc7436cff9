"""Soak: a large source through the real `run`: peak memory of all its processes against a small source, and rates.

    make soak                2 GB, then 20 GB, in a folder that is removed afterwards
    make soak GB=2           0.2 GB, then 2 GB

The source is tar shards of real photographs: a few real files, and hard links to them under as many names as it takes,
so it costs little disk; every link is read, digested, decoded and labelled as a shard of its own. The labeler costs
next to nothing and needs no torch. Ray's object store has 1 GB at most. Memory is the proportional set size (PSS:
shared pages counted once) summed over the run's processes, looked at every second.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import descends, report, stat_fields, talk
from photos import jpegs, write_shards

STORE_BYTES = 10**9
"""Of Ray's object store, at most."""
PHOTO = (500, 375)
PER_SHARD = 1000
REAL_SHARDS = 4
LOOK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Soaked:
    """What a run over so much took."""

    gigabytes: float
    samples: int
    seconds: float
    peak: int
    """PSS in bytes, of all processes together; shared memory of the object store among it."""
    spilled: int
    """Bytes seen in Ray's spill folders at most."""


def main(folder: Path) -> None:
    gigabytes = float(os.environ.get("GB", "20"))
    real = write_real(folder)
    small, large = (soak(folder, real, size) for size in (gigabytes / 10, gigabytes))
    for one in (small, large):
        title = f"{one.gigabytes:g} GB, {one.samples:,} photographs"
        report(f"{title}: rate", one.samples / one.seconds, "images/s", f"{one.seconds:.0f} s from start to end")
        report(f"{title}: bytes", one.gigabytes * 1e3 / one.seconds, "MB/s")
        report(f"{title}: peak memory of all processes", one.peak / 2**20, "MiB PSS")
        report(f"{title}: spilled", one.spilled, "B", target="0", met=one.spilled == 0)
    ratio = large.peak / small.peak
    report("peak memory, large against small", ratio, "x", target="flat (<= 1.1)", met=ratio <= 1.1)


def write_real(folder: Path) -> list[Path]:
    """A few real shards, each of different photographs."""
    write_shards(folder / "real", jpegs(PER_SHARD, PHOTO), PER_SHARD * REAL_SHARDS, PER_SHARD)
    return sorted((folder / "real").glob("*.tar"))


def soak(folder: Path, real: list[Path], gigabytes: float) -> Soaked:
    """One run, in processes of its own, over hard links that look like so many gigabytes."""
    place = folder / f"{gigabytes:g}"
    (place / "source").mkdir(parents=True)
    number = max(2, round(gigabytes * 1e9 / real[0].stat().st_size))
    for link in range(number):
        os.link(real[link % len(real)], place / "source" / f"{link:06d}.tar")
    recipe = {
        "name": "soak", "source": str(place / "source" / "*.tar"), "steps": ["thumbnail"],
        "store": str(place / "store"),
        "plugins": [str(Path(__file__).with_name("thumbnail.py"))], "resources": {"actors": 1},
    }  # fmt: skip
    (place / "recipe.yaml").write_text(json.dumps(recipe), encoding="ascii")
    size = number * real[0].stat().st_size / 1e9
    with ray_folder() as temporary:
        begun = time.monotonic()
        peak, spilled = watch(place / "recipe.yaml", temporary)
        seconds = time.monotonic() - begun
    talk(f"{size:.2f} GB in {seconds:.0f} s, {number} shards, peak {peak / 2**20:.0f} MiB, spilled {spilled} B")
    shutil.rmtree(place)
    return Soaked(round(size, 2), number * PER_SHARD, seconds, peak, spilled)


class ray_folder:  # noqa: N801  (reads as a function)
    """A short path for Ray's sockets, logs and spilled objects."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def watch(recipe: Path, temporary: Path) -> tuple[int, int]:
    """Runs the command; its peak memory, and the most that lay in Ray's spill folders."""
    limits = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(STORE_BYTES), "RAY_TMPDIR": str(temporary)}
    words = [sys.executable, "-m", "pipelines", "run", str(recipe), "--json"]
    peak = spilled = 0
    with subprocess.Popen(words, env={**os.environ, **limits}, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(pss, tree(process.pid))))
            spilled = max(spilled, sum(sizes_below(temporary)))
            time.sleep(LOOK_SECONDS)
        assert process.stdout is not None
        out = process.stdout.read()
    if process.returncode or not json.loads(out)["published"]:
        raise SystemExit(f"the run ended with exit code {process.returncode}: {out[-500:]}")
    return peak, spilled


def tree(root: int) -> list[int]:
    """The process and all below it."""
    found = {int(each.name): stat_fields(each) for each in Path("/proc").iterdir() if each.name.isdigit()}
    parents = {pid: int(fields[1]) for pid, fields in found.items() if fields}
    return [pid for pid in parents if descends(pid, root, parents)]


def pss(pid: int) -> int:
    """Proportional set size in bytes; 0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def sizes_below(folder: Path) -> Iterator[int]:
    """Of the files that Ray spilled (`ray_spilled_objects*` in a session's folder)."""
    for spill in folder.glob("ray/session_2*/ray_spilled_objects*"):
        for path in spill.rglob("*"):
            try:
                yield path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue


if __name__ == "__main__":
    main(Path(sys.argv[1]))
