"""A model that cannot be loaded ends the run; readers that are at work by then hold nothing up and spoil nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from pipelines import run
from pipelines.loading import load
from pipelines.plan import make_job, plan
from pipelines.progress import Tally
from pipelines.running import label
from pipelines.stopping import StopRequest
from relabel.errors import RelabelError


@pytest.mark.usefixtures("ray_cluster")
def test_weights_that_are_not_those_of_the_plan_end_the_run(recipe: Callable[..., dict[str, Any]]) -> None:
    job = make_job(load(recipe()))
    job.labelers[0].facts["weights"] = "0" * 64
    todo = plan(job)
    with pytest.raises(RelabelError):
        list(label(todo, Tally(len(todo.todo)), StopRequest()))
    # Readers were cancelled, of new processes in the middle of importing torch, which can then never be imported there.
    outcome = run(recipe())
    assert outcome.release is not None
    assert (outcome.release.counts.ok, outcome.release.counts.dead) == (26, 0)
