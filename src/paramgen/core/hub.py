"""The Hugging Face Hub: places such as ``hf://owner/name@revision/pattern``, downloads and uploads with errors of one line.

Downloads are read by the functions that read local files, so the rules of trust are the same: nothing that a file names is executed.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from paramgen.core.locks import LOCK
from paramgen.errors import ParamgenError, did_you_mean, one_line, refused_by_system

SCHEME = "hf://"
CARD = "README.md"  # the file of a repository that the Hub shows as its card
FORM = "hf://owner/name, with @revision and /pattern where needed, or hf://datasets/owner/name"
PATIENCE = 10  # seconds for a first answer; libraries that go on trying take a minute, or wait for ever
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


def parse_repository(text: str) -> HubPlace:
    """A repository given as ``hf://owner/name`` or as ``owner/name``.

    Raises:
        ParamgenError: Another form, or a path in a repository.
    """
    place = parse_hub(text if is_hub(text) else f"{SCHEME}{text}")
    if place.pattern:
        raise ParamgenError(f"{text!r} names files in a repository, expected a repository: {SCHEME}{place.repo}")
    return place


def download(place: str | HubPlace, without: Sequence[str] = ()) -> HubFiles:
    """Download the files of a place to the cache of huggingface_hub. Those that are complete already are not fetched again.

    Args:
        place: ``hf://…``.
        without: Globs over paths that are not downloaded.

    Raises:
        ParamgenError: An unknown repository or revision, no such file, no access, no connection, or a full disk.
    """
    wanted = parse_hub(place) if isinstance(place, str) else place
    with hub_errors(wanted):
        available = _is_available(wanted)
    with hub_errors(wanted, reached=available):
        folder = Path(
            _client().snapshot_download(
                wanted.repo,
                repo_type=wanted.kind,
                revision=wanted.revision,
                cache_dir=os.environ.get("HF_HUB_CACHE"),
                allow_patterns=wanted._globs() if wanted.pattern else None,
                ignore_patterns=list(without),
                local_files_only=not available,
            )
        )
        files = [path for path in _below(folder) if wanted.matches(path)]
        if not files:
            listed = _client().list_repo_files(wanted.repo, repo_type=wanted.kind, revision=wanted.revision)
            what = f"no file matches {wanted.pattern!r}" if wanted.pattern else "the repository holds no files"
            raise ParamgenError(f"{wanted}: {what}. {did_you_mean(wanted.pattern, listed)}")
    return HubFiles(folder, files)


def require_model(repo: str, files: Sequence[str]) -> None:
    """Refuse a model that another library is to read from the Hub if it was not downloaded before and the Hub cannot be reached.

    Args:
        repo: ``owner/name``, or ``name``.
        files: One of them is in the cache of huggingface_hub if the model was downloaded before.

    Raises:
        ParamgenError: As :func:`download`.
    """
    from huggingface_hub import try_to_load_from_cache

    cache = os.environ.get("HF_HUB_CACHE")
    if any(isinstance(try_to_load_from_cache(repo, file, cache), str) for file in files):
        return
    place = HubPlace(repo)
    with hub_errors(place):
        _client().repo_info(repo, timeout=PATIENCE)


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository, ``owner/name`` or ``name``, and is not a folder here."""
    return name.count("/") <= 1 and all(map(_NAME.fullmatch, name.split("/"))) and not Path(name).exists()


def pull_files(place: HubPlace, into: str | Path, index: str, patterns: Sequence[str]) -> list[str]:
    """Download files of one commit into a folder of ours, `index` last: a folder without it is incomplete, and the same call goes on.

    Args:
        place: A repository.
        into: The folder; it may hold what an interrupted download left.
        index: The file that a repository of this kind holds.
        patterns: Globs over the other files; nothing else is downloaded.

    Returns:
        The files, `index` last.

    Raises:
        ParamgenError: As :func:`download`; the repository has no such file, or the folder holds something else.
    """
    folder = Path(into)
    if folder.is_dir() and (there := {path.name for path in folder.iterdir()} - {LOCK}) and ".cache" not in there:
        raise ParamgenError(f"{into} exists and is not empty; choose another folder")
    with hub_errors(place):
        client, where = _client(), {"repo_id": place.repo, "repo_type": place.kind}
        where["revision"] = client.repo_info(**where, revision=place.revision, timeout=PATIENCE).sha
        if index not in (available := client.list_repo_files(**where)):
            raise ParamgenError(f"{place} holds no {index}. {did_you_mean(index, available)}")
    with hub_errors(place, reached=True):
        client.snapshot_download(**where, local_dir=folder, allow_patterns=list(patterns), ignore_patterns=index)
        client.snapshot_download(**where, local_dir=folder, allow_patterns=index)
    files = [name for name in _below(folder) if name not in (index, LOCK)]
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # of huggingface_hub, to go on after an interruption
    return [*files, index]


def local_checkpoint(path: str | Path) -> str | Path:
    """A checkpoint's path on this machine: one on the Hub is downloaded to the cache, others are returned as given.

    Args:
        path: A file or folder, or ``hf://owner/name`` of a repository with one ``.ckpt`` file, or with a pattern that selects one.

    Raises:
        ParamgenError: As :func:`download`; no such file, or several.
    """
    if not is_hub(path):
        if not Path(path).exists():
            raise ParamgenError(f"checkpoint not found: {str(path)!r}")
        return path
    place = parse_hub(str(path))
    folder, files = download(place if place.pattern else replace(place, pattern="*.ckpt"))
    found = [name for name in files if name.endswith(".ckpt")]
    if len(found) != 1:
        several = f"{len(found)} checkpoints; choose one: {', '.join(found[:8])}" if found else "no .ckpt file"
        raise ParamgenError(f"{path} holds {several}")
    return folder / found[0]


def upload(folder: str | Path, place: HubPlace, index: str, message: str, private: bool, delete: str = "") -> str:
    """Commit the files of a folder to a repository, which is made if it does not exist.

    Args:
        folder: All of its files are uploaded, save hidden ones.
        place: The repository, and the branch where it names one.
        index: The file that a repository of this kind holds; an existing one must have it, or be empty.
        message: Of the commit.
        private: Make a new repository private.
        delete: Glob over files of the repository that are deleted unless the folder has them.

    Returns:
        The address of the repository.

    Raises:
        ParamgenError: No token or one that does not permit this, a repository that holds something else, or no connection.
    """
    if place.pattern:
        raise ParamgenError(f"{place}: upload takes a repository, without a path in it")
    from huggingface_hub import get_token

    if get_token() is None:
        raise ParamgenError(f"no token for {_endpoint()}: {LOG_IN}")
    with hub_errors(place, exists=True):  # after the first lines
        client = _client()
        if not _exists(place):
            client.create_repo(place.repo, repo_type=place.kind, private=private or None)
        present = set(client.list_repo_files(place.repo, repo_type=place.kind, revision=place.revision))
        if present - {".gitattributes", "README.md"} and index not in present:
            raise ParamgenError(f"{place} already holds other files and no {index}; choose another repository")
        client.upload_folder(
            repo_id=place.repo,
            repo_type=place.kind,
            folder_path=folder,
            revision=place.revision,
            commit_message=message,
            ignore_patterns=[".*"],
            delete_patterns=delete or None,
        )
    return f"{_endpoint()}/{'datasets/' * (place.kind == 'dataset')}{place.repo}"


@contextmanager
def hub_errors(place: HubPlace, exists: bool = False, reached: bool = False) -> Iterator[None]:
    """Report what huggingface_hub raises in the block as one line that says what to do.

    Args:
        place: What the block is about.
        exists: The repository exists, so that one that is not found is one that the token does not permit.
        reached: The Hub has answered, so that files are being transferred.
    """
    try:
        yield
    except ParamgenError:
        raise
    except Exception as error:  # the library lets those of its HTTP client through, which depends on its version
        raise _reported(error, place, exists, reached) from error


def _reported(error: Exception, place: HubPlace, exists: bool, reached: bool) -> ParamgenError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ParamgenError(f"{place.repo} is gated: request access on its page; {LOG_IN}")
    if isinstance(error, errors.RepositoryNotFoundError) and not exists:
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
    if reached and _of_http_client(error):
        return ParamgenError(
            f"the connection to {_endpoint()} broke during the download of {place}: run the same command again, "
            "which keeps the files that are complete"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) or _of_http_client(error):
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "check the connection"
        return ParamgenError(f"cannot reach {_endpoint()} for {place}, and it was not downloaded before: {offline}")
    return ParamgenError(f"{place}: {one_line(error)}")


def _is_available(place: HubPlace) -> bool:
    """Whether a repository can be read now; False if the Hub cannot be reached, so that only what was downloaded before is here."""
    from huggingface_hub import errors

    try:
        _client().repo_info(place.repo, repo_type=place.kind, revision=place.revision, timeout=PATIENCE)
    except errors.HfHubHTTPError:
        raise
    except Exception as error:
        if isinstance(error, errors.OfflineModeIsEnabled) or _of_http_client(error):
            return False
        raise
    return True


def _exists(place: HubPlace) -> bool:
    """Whether there is such a repository."""
    from huggingface_hub import errors

    try:
        _client().repo_info(place.repo, repo_type=place.kind, timeout=PATIENCE)
    except errors.RepositoryNotFoundError:
        return False
    return True


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


def read_card(file: str) -> str:
    """The text of a model card of the user's own.

    Raises:
        ParamgenError: No such file, or no text.
    """
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParamgenError(f"cannot read the model card {file}: {one_line(error)}") from error
