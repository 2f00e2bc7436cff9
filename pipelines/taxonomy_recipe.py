"""Taxonomy recipe: of which texts a language model induces a taxonomy, how, and where it goes."""

from typing import Any

from pydantic import Field, field_validator

from relabel.labelers.engines.choice import EngineChoice
from relabel.labelers.taxonomy_build import TaxonomySettings
from relabel.shards.source import SourceConfig

from .recipe import Resources
from .section import Section
from .store_config import StoreConfig


class TaxonomyRecipe(Section):
    """A taxonomy to be built."""

    name: str = Field(default="taxonomy", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """For messages."""
    source: SourceConfig
    """Texts: a sample has a field `text`, or `fields` says what is it (`{text: caption_long}` of a release)."""
    samples: int = Field(default=1000, ge=2, le=100_000)
    """So many texts, chosen by a hash of the key, are looked at."""
    engine: EngineChoice
    """The language model, as in a step (`{kind: endpoint, url: ..., model: ...}`). It is asked from here, one minibatch
    after the other."""
    build: TaxonomySettings = TaxonomySettings()
    """Categories, minibatches, what ends it, seed."""
    begin: str | None = None
    """A taxonomy to begin with: a JSON file (made by hand, or an earlier version). Default: the newest one in the
    store, where there is one."""
    store: StoreConfig
    """A folder or URL: taxonomies lie there as `taxonomies/t0001.json`, each created once and never changed."""
    resources: Resources = Resources()
    """Of the pass over the source, and of a model in this process: `compute_batch`, `threads`."""

    @field_validator("source")
    @classmethod
    def has_texts(cls, source: SourceConfig) -> SourceConfig:
        if source.kind == "images":
            raise ValueError("expected a source of texts, got a folder of images")
        return source

    def sampling(self) -> dict[str, Any]:
        """The recipe whose statistic is the sample."""
        asked = {"samples": self.samples, "seed": self.build.seed, "text": True, "max_chars": self.build.max_chars}
        return {
            "name": self.name,
            "source": self.source.model_dump(mode="json"),
            "steps": [{"hash_sample": asked}],
            "store": self.store.model_dump(mode="json"),
            "resources": self.resources.model_dump(mode="json"),
        }
