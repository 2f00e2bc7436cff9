"""Store config: how a recipe names a store. Neither a place that is none nor a secret is accepted."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from relabel.storage.filesystems import check_options, check_url, is_local, local_path

from .section import Section


def _place(url: str) -> str:
    check_url(url)
    if is_local(url):
        local_path(url)
    return url


def _without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    check_options(options)
    return options


StoreUrl = Annotated[str, Field(min_length=1), AfterValidator(_place)]
StorageOptions = Annotated[dict[str, Any], AfterValidator(_without_secrets)]


class StoreConfig(Section):
    """Where releases go. In YAML a plain string is the URL."""

    url: StoreUrl
    """A folder (relative to the current one), or any fsspec URL (`s3://bucket/prefix`)."""
    storage_options: StorageOptions = Field(default_factory=dict)
    """fsspec options (`endpoint_url`, `profile`); secrets only as `${ENV_NAME}`."""

    @model_validator(mode="before")
    @classmethod
    def from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value
