"""The Hugging Face Hub: places such as ``hf://owner/name@revision/pattern``, downloads and uploads with errors of one line.

Downloads are read by the functions that read local files, so the rules of trust are the same: nothing that a file names is executed.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from paramgen.errors import ParamgenError, did_you_mean, one_line, refused_by_system

SCHEME = "hf://"
FORM = "hf://owner/name, with @revision and /pattern where needed, or hf://datasets/owner/name"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_SPECIAL = re.compile(r"refs/(?:pr/\d+|convert/[\w.-]+)")  # revisions with a slash, which the Hub makes itself
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?")


@dataclass(frozen=True)
class HubPlace:
    """A repository on the Hub, or some of its files.

    Args:
        repo: ``owner/name``.
        revision: Branch, tag or commit. Default: the main branch.
        pattern: A file, a folder, or a glob over paths in the repository. Default: all files.
        kind: A repository of models or of data.
    """

    repo: str
    revision: str | None = None
    pattern: str = ""
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{SCHEME}{'datasets/' * (self.kind == 'dataset')}{self.repo}{revision}{self.pattern and f'/{self.pattern}'}"

    def matches(self, path: str) -> bool:
        """Whether a file of the repository belongs to this place."""
        return not self.pattern or any(fnmatchcase(path, glob) for glob in self._globs())

    def _globs(self) -> list[str]:
        return [self.pattern, f"{self.pattern.rstrip('/')}/*"]


class HubFiles(NamedTuple):
    """Files that were downloaded.

    Args:
        folder: Holds them under their paths in the repository. It may hold others.
        files: Their paths in the repository, sorted.
    """

    folder: Path
    files: list[str]


def is_hub(place: str | Path) -> bool:
    """Whether a place is on the Hub."""
    return isinstance(place, str) and place.startswith(SCHEME)


def parse_hub(place: str) -> HubPlace:
    """The parts of ``hf://[datasets/]owner/name[@revision][/pattern]``; a slash in a branch's name is written ``%2F``.

    Raises:
        ParamgenError: Another form.
    """
    rest = place.removeprefix(SCHEME)
    kind: Literal["model", "dataset"] = "dataset" if rest.startswith("datasets/") else "model"
    owner, _, rest = re.sub("^(datasets|models)/", "", rest).partition("/")
    match = re.fullmatch(r"([^@/]*)(?:@([^/]*(?:/.*)?))?(?:/(.*))?", rest)
    name, revision, pattern = match.groups() if match else ("", None, None)
    if revision is not None:
        special = _SPECIAL.match(revision)
        revision, pattern = (
            (special[0], revision[special.end() :].lstrip("/")) if special else revision.partition("/")[::2]
        )
    if not is_hub(place) or revision == "" or not all(_NAME.fullmatch(part or "") for part in (owner, name)):
        raise ParamgenError(f"{place!r} is not a place on the Hub: expected {FORM}")
    return HubPlace(f"{owner}/{name}", revision and unquote(revision), pattern or "", kind)


def download(place: str | HubPlace, into: str | Path | None = None) -> HubFiles:
    """Download the files of a place. Those that are complete already are not fetched again.

    Args:
        place: ``hf://…``.
        into: A folder for the files. Default: the cache of huggingface_hub, where files are links.

    Raises:
        ParamgenError: An unknown repository or revision, no such file, no access, no connection, or a full disk.
    """
    wanted = parse_hub(place) if isinstance(place, str) else place
    with hub_errors(wanted):
        folder = Path(
            _client().snapshot_download(
                wanted.repo,
                repo_type=wanted.kind,
                revision=wanted.revision,
                cache_dir=os.environ.get("HF_HUB_CACHE"),
                local_dir=into,
                allow_patterns=wanted._globs() if wanted.pattern else None,
            )
        )
        files = [path for path in _below(folder) if wanted.matches(path)]
        if not files:
            available = _client().list_repo_files(wanted.repo, repo_type=wanted.kind, revision=wanted.revision)
            what = f"no file matches {wanted.pattern!r}" if wanted.pattern else "the repository holds no files"
            raise ParamgenError(f"{wanted}: {what}. {did_you_mean(wanted.pattern, available)}")
    return HubFiles(folder, files)


@contextmanager
def hub_errors(place: HubPlace) -> Iterator[None]:
    """Report what huggingface_hub raises in the block as one line that says what to do."""
    try:
        yield
    except ParamgenError:
        raise
    except Exception as error:  # the library lets those of its HTTP client through, which depends on its version
        raise _reported(error, place) from error


def _reported(error: Exception, place: HubPlace) -> ParamgenError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ParamgenError(
            f"{place.repo} asks for consent before it can be read: ask for access on its page; {LOG_IN}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ParamgenError(
            f"Unknown {place.kind} repository {place.repo!r} on {_endpoint()}: check the name; if it is private, {LOG_IN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ParamgenError(
            f"Unknown revision {place.revision!r} of {place.repo}: expected a branch, a tag or a commit"
        )
    if isinstance(error, errors.HfHubHTTPError) and (status := error.response.status_code):
        if status in (401, 403):
            missing = "no valid token" if status == 401 else "the token does not permit this"
            return ParamgenError(f"{place.repo} on {_endpoint()}: {missing}; {LOG_IN}")
        return ParamgenError(f"{place.repo} on {_endpoint()}: the server answered {status}: {one_line(error)}")
    if refused := refused_by_system(error):
        return refused
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) or _of_http_client(error):
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "check the connection"
        return ParamgenError(f"cannot reach {_endpoint()} for {place}, and it was not downloaded before: {offline}")
    return ParamgenError(f"{place}: {one_line(error)}")


def _of_http_client(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _client() -> Any:
    from huggingface_hub import HfApi  # 0.5 s

    return HfApi(endpoint=_endpoint(), library_name="paramgen")


def _below(folder: Path) -> Sequence[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.parts[:2] != (".cache", "huggingface"))
