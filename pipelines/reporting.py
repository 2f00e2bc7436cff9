"""Reporting: the page that a run or an approval writes beside its release, named by its content, before the commit."""

import dataclasses
import sys

from relabel.errors import RelabelError
from relabel.releases.cards import FOLDER
from relabel.releases.commit import Judge, Proposal
from relabel.releases.release import Release, Store
from relabel.releases.stored import create_named
from relabel.releases.versions import Version
from relabel.storage.objects import ObjectStore

KIND = "report"
"""Among a version's cards."""


@dataclasses.dataclass(frozen=True)
class Reporter:
    """Judges as `gate` does, then writes the page; one of a release that is not published after all is garbage, which
    `collect` finds. A release whose page cannot be made is published without it.
    """

    store: ObjectStore
    gate: Judge

    def __call__(self, proposal: Proposal) -> Version:
        """The candidate with its verdict and its page; milestones have none."""
        judged = self.gate(proposal)
        if judged.partial:
            return judged
        from .report import encoded, page_of

        try:
            page = page_of(Store(self.store), Release(self.store, judged))
            made = create_named(self.store, FOLDER, encoded(page), ".html")
        except RelabelError as error:
            print(
                f"relabel: release {judged.version} has no page, which could not be made: {error} `relabel report "
                f"{self.store.url} --release {judged.version}` makes one.",
                file=sys.stderr,
            )
            return judged
        return judged.model_copy(update={"cards": {**judged.cards, KIND: made}})
