"""The Hugging Face Hub: places, downloads and uploads, with huggingface_hub's own client against a local server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Hub, serving
from paramgen.core.hub import HubPlace, download, parse_hub
from paramgen.errors import ParamgenError

FILES = {"a.safetensors": b"weights", "runs/1/b.pt": b"more", "README.md": b"# Read me"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub that holds one repository of models; downloads go to a cache of this test."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        server.add("ann/nets", FILES, lfs={"a.safetensors"})
        yield server


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hf://ann/nets", HubPlace("ann/nets")),
        ("hf://ann/nets/runs/*.pt", HubPlace("ann/nets", None, "runs/*.pt")),
        ("hf://ann/nets@v1", HubPlace("ann/nets", "v1")),
        ("hf://ann/nets@v1/runs/1/b.pt", HubPlace("ann/nets", "v1", "runs/1/b.pt")),
        ("hf://ann/nets@refs/pr/3/b.pt", HubPlace("ann/nets", "refs/pr/3", "b.pt")),
        ("hf://ann/nets@feature%2Fx/b.pt", HubPlace("ann/nets", "feature/x", "b.pt")),
        ("hf://datasets/ann/nets@v1/a@b.csv", HubPlace("ann/nets", "v1", "a@b.csv", "dataset")),
        ("hf://models/ann/nets", HubPlace("ann/nets")),
    ],
)
def test_place_on_the_hub_is_parsed(text: str, place: HubPlace) -> None:
    assert parse_hub(text) == place
    assert parse_hub(str(place).replace("feature/x", "feature%2Fx")) == place


@pytest.mark.parametrize(
    "text", ["hf://", "hf://ann", "hf://ann/", "hf:///nets", "hf://ann/nets@", "hf://../x", "hf://a b/c"]
)
def test_what_is_no_place_on_the_hub_is_refused(text: str) -> None:
    with pytest.raises(ParamgenError, match="is not a place on the Hub: expected hf://owner/name"):
        parse_hub(text)


def test_download_takes_the_files_of_the_pattern_alone_and_each_once(hub: Hub) -> None:
    folder, files = download("hf://ann/nets/*.safetensors")
    assert (folder / "a.safetensors").read_bytes() == b"weights"
    assert files == ["a.safetensors"]
    assert not (folder / "README.md").exists()
    hub.requests.clear()
    assert download("hf://ann/nets/*.safetensors").files == files
    assert not any(request.startswith("GET ann/nets/resolve") for request in hub.requests)


def test_pattern_may_name_a_folder_and_files_may_go_into_one_of_ours(hub: Hub, tmp_path: Path) -> None:
    folder, files = download("hf://ann/nets/runs", tmp_path / "here")
    assert files == ["runs/1/b.pt"]
    assert not (folder / files[0]).is_symlink()


def test_revision_is_downloaded(hub: Hub) -> None:
    first = hub.repositories["models/ann/nets"].refs["main"]
    hub.repositories["models/ann/nets"].commit({"a.safetensors": b"later"})
    assert (download("hf://ann/nets").folder / "a.safetensors").read_bytes() == b"later"
    assert (download(f"hf://ann/nets@{first}").folder / "a.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "hf://ann/net",
            "Unknown model repository 'ann/net' on http://127.0.0.1.* if it is private, log in with `hf auth login`",
        ),
        ("hf://datasets/ann/nets", "Unknown dataset repository 'ann/nets' on"),
        ("hf://ann/nets@v7", "Unknown revision 'v7' of ann/nets"),
        ("hf://ann/nets/a.safetensor", "no file matches 'a.safetensor'. Did you mean 'a.safetensors'?"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: Hub, place: str, message: str) -> None:
    with pytest.raises(ParamgenError, match=message) as caught:
        download(place)
    assert "\n" not in str(caught.value)


def test_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ParamgenError, match=r"cannot reach http://127.0.0.1:9 for hf://ann/nets.*: check the connection"
    ):
        download("hf://ann/nets")
