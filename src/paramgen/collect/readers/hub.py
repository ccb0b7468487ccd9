"""A source on the Hugging Face Hub, ``hf://owner/name@revision/pattern``: downloaded to the Hub's cache, then read like a local folder."""

from pathlib import Path
from typing import NamedTuple

from paramgen.collect.readers.pattern import PathPattern
from paramgen.core.hub import HubPlace, download, parse_hub

_ASIDE = ["*optimizer*.pt", "*optimizer*.bin", "*scheduler*.pt", "*rng_state*", "*training_args*", "*events.out*"]


class Fetched(NamedTuple):
    """A source that was downloaded."""

    folder: Path
    pattern: str | None  # of the paths to take, with fields
    commit: str


def fetch_source(source: str, pattern: str | None) -> Fetched:
    """Download what an address and a pattern take. An interrupted download resumes; complete files are not fetched again.

    Args:
        source: ``hf://owner/name@revision/pattern``, where the pattern may have the fields of ``--pattern``, or names a folder or file.
        pattern: ``--pattern``; paths begin in the repository, or in the folder that the address names.

    Raises:
        ParamgenError: No such repository, revision or file, no access, or no connection.
    """
    place = parse_hub(source)
    fields = any(sign in place.pattern for sign in "{*?")
    wanted = PathPattern(place.pattern).glob.replace("**/", "*") if fields else place.pattern
    files = download(HubPlace(place.repo, place.revision, wanted, place.kind), without=_ASIDE)
    folder = files.folder if fields or not place.pattern else files.folder / place.pattern
    return Fetched(folder, pattern or (place.pattern if fields else None), files.folder.name)
