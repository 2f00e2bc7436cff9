"""About: which relabel this is."""

from importlib import metadata

DISTRIBUTION = "relabel-ray"


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; "0+unknown" where it is not installed (a bare checkout)."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "0+unknown"


__version__ = installed_version(DISTRIBUTION)
