"""Fuzz: many seeds of the simulation, in several processes; prints the seed that failed and how to repeat it.

python -m relabel.testing.fuzz --seeds 10000
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence

from .simulation import simulate
from .watch import Violation

PER_TASK = 50
SHOWN_TURNS = 40


def play(seeds: range) -> tuple[int, int, list[tuple[int, str]]]:
    """Turns and versions of all these histories, and the seeds that failed, with why."""
    turns = versions = 0
    failures = []
    for seed in seeds:
        try:
            world = simulate(seed)
        except Violation as error:
            failures.append((seed, str(error)))
        else:
            turns, versions = turns + len(world.trace), versions + len(world.watch.versions)
    return turns, versions, failures


def explain(seed: int) -> str:
    """The last turns before the violation: what a person needs to understand it."""
    try:
        simulate(seed)
    except Violation as error:
        return "\n".join([*error.trace[-SHOWN_TURNS:], str(error)])
    return f"seed {seed} held when it was played again."


def fuzz(first: int, seeds: int, processes: int) -> list[tuple[int, str]]:
    """The seeds that failed; says how many histories were played."""
    begun = time.monotonic()
    stop = first + seeds
    chunks = [range(start, min(start + PER_TASK, stop)) for start in range(first, stop, PER_TASK)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
        results = list(pool.map(play, chunks)) if processes > 1 else list(map(play, chunks))
    failures = [failure for _, _, failed in results for failure in failed]
    turns, versions = sum(result[0] for result in results), sum(result[1] for result in results)
    print(
        f"{seeds} seeds from {first}: {turns} operations, {versions} versions, {len(failures)} violations, "
        f"{time.monotonic() - begun:.0f} s"
    )
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Play many histories of several programs on one store.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    failures = fuzz(options.first, options.seeds, min(options.processes, max(1, options.seeds // PER_TASK)))
    if failures:
        print(explain(failures[0][0]))
    for seed, what in failures[:10]:
        print(f"seed {seed}: {what[:200]}\n  repeat it: make fuzz FIRST={seed} SEEDS=1")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
