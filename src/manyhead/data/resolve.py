"""Where the files that a recipe names are: below its data folder, or fetched from the hub."""

from functools import partial
from pathlib import Path

from manyhead.data.cache import default_cache_dir
from manyhead.data.examples import Resolve, resolver
from manyhead.data.fetch import fetch
from manyhead.recipe.schema import Recipe


def resolve_files(recipe: Recipe) -> Resolve:
    """From a reference to a file on this machine; raises `UsageError` where the hub cannot give one."""
    return resolver(Path(recipe.data_dir), partial(fetch, cache_dir=hub_cache()))


def hub_cache() -> Path:
    """The folder that data sets of the hub are kept in."""
    return default_cache_dir() / "hub"
