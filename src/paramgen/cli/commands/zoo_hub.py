"""``paramgen zoo push | pull``: zoos on the Hugging Face Hub."""

from pathlib import Path
from tempfile import TemporaryDirectory

from paramgen.core import hub
from paramgen.core.counting import counted
from paramgen.core.io import link_or_copy, write_atomic
from paramgen.core.zoo import BASE, START, Zoo
from paramgen.errors import ParamgenError

ZOO_INDEX = "zoo.json"


def push_zoo(
    zoo: str,
    repo: str,
    license: str | None = None,
    card: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Upload a zoo to the Hugging Face Hub, with a card that describes it.

    Args:
        zoo: Folder or name of a zoo.
        repo: Repository, ``owner/name``, created if it does not exist; ``datasets/owner/name`` for one of data, ``hf://owner/name@branch``
            for a branch.
        license: Licence of the zoo as the Hub names it, for example mit.
        card: Markdown file to upload in place of the written card.
        private: Make a new repository private.
        message: Commit message.

    Raises:
        ParamgenError: A damaged zoo, no token, or a repository that holds something else.
    """
    from paramgen.export.card import zoo_card  # it brings scipy, which zoo import and zoo verify do not need

    place, opened = hub.parse_repository(repo), Zoo(zoo)
    if problems := opened.verify():
        raise ParamgenError(f"{len(problems)} of {len(opened)} networks are damaged: {'; '.join(problems)}")
    text = hub.read_card(card) if card else zoo_card(opened, place, license)
    files = [opened.file(i) for i in range(len(opened))]
    files += [path for name in (BASE, START, ZOO_INDEX) if (path := opened.path / name).is_file()]
    with TemporaryDirectory() as folder:
        for file in files:
            link_or_copy(file, Path(folder) / file.relative_to(opened.path))
        write_atomic(Path(folder) / hub.CARD, text.encode())
        url = hub.upload(
            folder, place, ZOO_INDEX, message or f"Zoo of {counted(len(opened), 'network')}", private, "*.safetensors"
        )
    print(f"uploaded: {url}")
    return url


def pull_zoo(repo: str, out: str) -> Path:
    """Download a zoo from the Hugging Face Hub, and check each of its files. To resume, rerun the command.

    Args:
        repo: Repository, ``owner/name`` or ``datasets/owner/name``; ``hf://owner/name@revision`` for a branch, tag or commit.
        out: Folder of the zoo.

    Raises:
        ParamgenError: An unknown repository, one without a zoo, no connection, a damaged file, or an existing folder.
    """
    hub.pull_files(hub.parse_repository(repo), out, ZOO_INDEX, ["*.safetensors", hub.CARD])
    opened = Zoo(out)
    if problems := opened.verify():
        raise ParamgenError(f"{len(problems)} of {len(opened)} networks are damaged: {'; '.join(problems)}")
    print(f"{opened.name}: {counted(len(opened), 'network')}, all files match their checksums")
    return opened.path
