"""``paramgen generator push | pull``: fitted generators on the Hugging Face Hub."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from paramgen.core import hub
from paramgen.core.io import fingerprint, read_json, write_atomic, write_json
from paramgen.errors import ParamgenError
from paramgen.export.card import generator_card
from paramgen.generators.restore import read_checkpoint, without_optimizer

CHECKPOINT, RESULTS = "generator.ckpt", "results.json"
_log = logging.getLogger(__name__)


def push_generator(
    ckpt_path: str,
    repo: str,
    results: str | None = None,
    license: str | None = None,
    card: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Upload a generator to the Hugging Face Hub, with a model card: what it learnt from, its results, how to use it.

    The optimizer's state is left out: the uploaded checkpoint is for sampling.

    Args:
        ckpt_path: Checkpoint written by ``paramgen fit``: a file, or a folder of shards.
        repo: Repository, ``owner/name``, created if it does not exist; ``hf://owner/name@branch`` for a branch.
        results: Output folder of ``paramgen evaluate``, or its results.json: the card shows its table, baselines included.
        license: Licence of the generator as the Hub names it, for example mit.
        card: Markdown file to upload in place of the written model card.
        private: Make a new repository private.
        message: Commit message.

    Raises:
        ParamgenError: An unknown checkpoint, results of something else, no token, or a repository that holds something else.
    """
    place, source = hub.parse_repository(repo), hub.local_checkpoint(ckpt_path)
    checkpoint = without_optimizer(read_checkpoint(source, parts=("state_dict",)))
    values = None if results is None else _read_results(Path(results))
    evaluated = values is None or _is_of(values, fingerprint(Path(source)))
    if not evaluated:
        _log.warning("%s evaluates other checkpoints than %s; the model card says so", results, ckpt_path)
    text = hub.read_card(card) if card else generator_card(checkpoint, place, license, values, evaluated)
    from paramgen.generators.checkpoints import CompleteCheckpoints  # it imports Lightning, which takes seconds

    with TemporaryDirectory() as folder:
        CompleteCheckpoints().save_checkpoint(checkpoint, Path(folder) / CHECKPOINT)
        write_atomic(Path(folder) / hub.CARD, text.encode())
        if values is not None:
            write_json(Path(folder) / RESULTS, values)
        url = hub.upload(folder, place, CHECKPOINT, message or "Generator of paramgen", private)
    print(f"uploaded: {url}")
    return url


def pull_generator(repo: str, out: str) -> Path:
    """Download a generator from the Hugging Face Hub.

    `--ckpt_path hf://owner/name` reads one without this command.

    Args:
        repo: Repository, ``owner/name``; ``hf://owner/name@revision`` for a branch, tag or commit.
        out: Output folder: generator.ckpt, README.md and results.json.

    Raises:
        ParamgenError: An unknown repository, one without a generator, no connection, or an existing folder.
    """
    target = Path(out)
    files = hub.pull_files(hub.parse_repository(repo), target, CHECKPOINT, [hub.CARD, RESULTS])
    read_checkpoint(target / CHECKPOINT, parts=())
    print(f"downloaded: {', '.join(files)}")
    return target


def _read_results(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(path / RESULTS if path.is_dir() else path, "results")
    if not any(row["kind"] == "generator" for row in values["rows"]):
        raise ParamgenError(f"{path} evaluates no generator: expected results of `paramgen evaluate --samples FOLDER`")
    return values


def _is_of(results: dict[str, Any], digest: str) -> bool:
    """Whether an evaluation is of samples of this checkpoint."""
    return any(about.get("checkpoint_sha256") == digest for about in results["generators"].values())


COMMANDS = {"push": push_generator, "pull": pull_generator}
