"""Impatient: a plugin whose process hardly waits for memory that another one may hold."""

from pipelines import memory
from relabel import register
from relabel.testing.misbehaving import Misbehaving


@register
class Impatient(Misbehaving):
    """As its parent; only the pauses are shorter than the 26 s of a real run."""

    name = "impatient"

    def load(self, device: str) -> None:
        memory.PAUSES_SECONDS = (0.1, 0.2, 0.4)
