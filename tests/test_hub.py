"""The Hugging Face Hub: places, downloads and uploads, with huggingface_hub's own client against a local server."""

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from hub_server import TOKEN, Hub, serving
from measured import make_zoo
from paramgen import evaluate, fit, load_generator, sample
from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.cli.main import main
from paramgen.core.hub import HubPlace, download, local_checkpoint, parse_hub, pull_files, upload
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.export.card import generator_card
from paramgen.tasks.language.models import causal_lm
from paramgen.tasks.language.texts import load_tokenizer
from paramgen.tasks.published import require_language_model
from paramgen.tasks.vision.networks import build_network

FILES = {"a.safetensors": b"weights", "runs/1/b.pt": b"more", "README.md": b"# Read me"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub that holds one repository of models; downloads go to a cache of this test."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("paramgen.core.hub.PATIENCE", 60)
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


def test_pattern_may_name_a_folder(hub: Hub) -> None:
    assert download("hf://ann/nets/runs").files == ["runs/1/b.pt"]


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


def test_files_that_were_downloaded_before_need_no_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = download("hf://ann/nets/*.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert download("hf://ann/nets/*.safetensors") == found


def test_download_that_breaks_goes_on_or_is_refused_and_no_half_file_is_taken_for_a_whole_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # of the client, between its trials
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    big = bytes(range(256)) * 100
    hub.add("ann/big", {"big.ckpt": big, "small.json": b"{}"}, lfs={"big.ckpt"})
    hub.cuts["big.ckpt"] = 3
    assert (download("hf://ann/big").folder / "big.ckpt").read_bytes() == big

    hub.repositories["models/ann/big"].commit({"big.ckpt": big[::-1], "small.json": b"[]", "zoo.json": b"{}"})
    for broken in (
        lambda: download("hf://ann/big"),
        lambda: local_checkpoint("hf://ann/big"),
        lambda: pull_files(HubPlace("ann/big"), tmp_path / "pulled", "zoo.json", ["*.ckpt"]),
    ):
        hub.cuts["big.ckpt"] = 10**6
        with pytest.raises(
            ParamgenError, match=r"the connection to .* broke during the download .*: run the same command again"
        ):
            broken()
    assert not any(path.read_bytes() != big for path in (tmp_path / "cache").rglob("big.ckpt"))  # the earlier commit's
    assert not [*(tmp_path / "pulled").glob("[!.]*")]

    hub.cuts.clear()
    assert Path(local_checkpoint("hf://ann/big")).read_bytes() == big[::-1]
    assert pull_files(HubPlace("ann/big"), tmp_path / "pulled", "zoo.json", ["*.ckpt"]) == ["big.ckpt", "zoo.json"]
    assert (tmp_path / "pulled" / "big.ckpt").read_bytes() == big[::-1]


def test_hub_that_never_answers_is_named_after_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("paramgen.core.hub.PATIENCE", 0.2)
        with pytest.raises(ParamgenError, match=f"cannot reach {address} for hf://ann/nets"):
            download("hf://ann/nets")
        with pytest.raises(ParamgenError, match=f"cannot reach {address} for hf://ann/nets"):
            pull_files(HubPlace("ann/nets"), tmp_path / "pulled", "zoo.json", ["*"])
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        with pytest.raises(ParamgenError, match=f"cannot reach {address} for hf://ann/nets"):
            upload(tmp_path, HubPlace("ann/nets"), "zoo.json", "message", private=False)


def test_models_that_other_libraries_read_from_the_hub_are_refused_at_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add("ann/words", {"config.json": b"{}"})
    assert download("hf://ann/words").files == ["config.json"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    begun = time.monotonic()
    require_language_model("ann/words")  # it was downloaded before
    for read in (load_tokenizer, lambda name: causal_lm(name, 10), lambda name: causal_lm(name, 10, pretrained=True)):
        with pytest.raises(ParamgenError, match=r"cannot reach http://127.0.0.1:9 for hf://huggyllama/llama-7b"):
            read("huggyllama/llama-7b")
    with pytest.raises(ParamgenError, match=r"cannot reach http://127.0.0.1:9 for hf://timm/resnet18"):
        build_network("timm:resnet18", 10, (3, 32, 32), pretrained=True)
    assert time.monotonic() - begun < 10
    assert "Retrying" not in capfd.readouterr().err


class Fitted(NamedTuple):
    """A zoo, a generator fitted on it, and an evaluation of its samples."""

    zoo: Path
    checkpoint: Path
    results: Path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted")
    make_zoo(folder / "zoo", runs=6, heldout=2, hidden=[8])
    settings = {"trainer.max_steps": 4, "trainer.logger": False, "quality.sample_every": 0}
    fit("pdiff_digits_mlp", {"data.zoo": str(folder / "zoo"), "checkpoint.dirpath": str(folder / "fit"), **settings})
    checkpoint = folder / "fit" / "last.ckpt"
    samples = sample(str(checkpoint), n=3, out=str(folder / "samples"))
    evaluate(str(folder / "zoo"), str(samples), out=str(folder / "report"), baselines="soup-2", n=3)
    return Fitted(folder / "zoo", checkpoint, folder / "report")


@pytest.fixture
def account(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub, with a token; commands run in an empty folder."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return hub


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_generator_is_pushed_with_its_card_and_sampled_from_the_hub(
    fitted: Fitted, account: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["generator", "push", "--ckpt_path", str(fitted.checkpoint), "--repo", "ann/digits", "--license", "mit"]
    assert main([*push, "--results", str(fitted.results)]) == 0
    files = account.repositories["models/ann/digits"].commits[account.repositories["models/ann/digits"].refs["main"]]
    assert sorted(files) == ["README.md", "generator.ckpt", "results.json"]
    assert b"optimizer_states" in fitted.checkpoint.read_bytes()
    assert b"optimizer_states" not in files["generator.ckpt"]
    _, head, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "paramgen",
        "tags": ["weight-generation", "pdiff"],
        "license": "mit",
    }
    results = json.loads((fitted.results / "results.json").read_text())
    spec = ScoreSpec.from_dict(results["score"])
    for row in results["rows"]:  # every row of the evaluation, its baselines included, with its score
        name = re.escape(f"**{row['name']}**" if row["kind"] == "generator" else row["name"])
        score = spec.text(row["values"]["mean"])
        assert re.search(rf"^\| {name} \|.* {score} ", text, re.MULTILINE), (row["name"], text)
    assert "4 networks of 4 runs" in text
    assert "another checkpoint" not in text
    assert f"accuracy in % on {results['test_items']} test items; 3 networks per row." in text
    for heading in ("What it learnt", "Results", "How to use it", "Licence"):
        assert f"\n## {heading}\n" in text

    command = next(line for line in text.splitlines() if line.startswith("paramgen sample"))
    assert main(command.removeprefix("paramgen ").replace("--n 10", "--n 2").split()) == 0
    torch.manual_seed(0)
    ours = load_generator(fitted.checkpoint).sample(2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    theirs = load_generator("hf://ann/digits").sample(2, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(ours[1][name], theirs[1][name]) for name in ours[1])
    assert json.loads(Path("samples/samples.json").read_text())["checkpoint"] == "hf://ann/digits"

    assert main(["generator", "pull", "--repo", "hf://ann/digits", "--out", "here"]) == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["README.md", "generator.ckpt", "results.json"]
    losses = ["test", "--config", "pdiff_digits_mlp", "--data.zoo", str(fitted.zoo), "--trainer.logger", "false"]
    assert main([*losses, "--ckpt_path", "hf://ann/digits"]) == 0
    line = refused(capsys, "fit", *losses[1:], "--ckpt_path", "hf://ann/digits")
    assert "has no optimizer state: it can be sampled, but no fit can resume from it" in line
    assert main([*push, "--ckpt_path", "hf://ann/digits", "--repo", "ann/copy"]) == 0
    copied = account.repositories["models/ann/copy"].commits[account.repositories["models/ann/copy"].refs["main"]]
    assert "No evaluation is attached, so nothing is claimed" in copied["README.md"].decode()


def test_every_command_with_a_checkpoint_reads_it_from_the_hub(
    fitted: Fitted, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo = ["--zoo", fitted.zoo]
    lightning = ["--config", "pdiff_digits_mlp", "--data.zoo", fitted.zoo, "--trainer.logger", "false"]
    compared = json.dumps({"ours": {"ckpt_path": "hf://ann/compare"}})
    lines = {
        "sample": [],
        "consolidate": ["--out", "one.ckpt"],
        "generator push": ["--repo", "ann/copy"],
        "unseen": zoo,
        **dict.fromkeys(LIGHTNING, lightning),
        "compare": ["--zoos", json.dumps({"zoo": {"path": str(fitted.zoo)}}), "--generators", compared, "--n", "2"],
    }
    for command, words in lines.items():
        repository = f"ann/{command.replace(' ', '-')}"
        hub.add(repository, {"generator.ckpt": b""}, lfs={"generator.ckpt"})
        given = [] if command == "compare" else ["--ckpt_path", f"hf://{repository}"]
        assert "generator.ckpt" in (line := refused(capsys, *command.split(), *words, *given)), command
        assert "the file is empty" in line
    with_checkpoints = set()
    for name, table in FUNCTIONS.items():
        module = import_module(f"paramgen.{table.module}")
        for verb, function in getattr(module, "COMMANDS", {"": getattr(module, "main", None)}).items():
            with_checkpoints |= {f"{name} {verb}".strip()} if "ckpt_path" in signature(function).parameters else set()
    assert with_checkpoints - lines.keys() == {"interpolate", "flips"}  # for families; they read as `unseen` does

    hub.add("ann/whole", {"last.ckpt": fitted.checkpoint.read_bytes()}, lfs={"last.ckpt"})
    assert main(["consolidate", "--ckpt_path", "hf://ann/whole", "--out", "one.ckpt"]) == 0
    assert load_generator("one.ckpt").fit_command == load_generator(fitted.checkpoint).fit_command
    fit_on = [
        str(word) for word in ["fit", *lightning, "--quality.sample_every", 0, "--checkpoint.dirpath", tmp_path / "on"]
    ]
    assert main([*fit_on, "--ckpt_path", "hf://ann/whole", "--trainer.max_steps", "6"]) == 0
    assert torch.load("on/last.ckpt", weights_only=True)["global_step"] == 6


def test_card_of_a_class_of_its_own_says_so_and_no_name_changes_its_structure() -> None:
    spec = {"tensors": [{"name": "a", "shape": [2, 3]}], "aliases": {}}
    saved = {
        "class_path": "own.Mine",
        "codec": {"spec": spec},
        "version": "1",
        "fit_seconds": 1.0,
        "uses_task_data": True,
    }
    zoo = {"name": "x\n# <b>Owned</b>\n| [click](http://x) |", "task": None, "networks": [0], "runs": [0]}
    card = generator_card({"paramgen": {**saved, "zoo": zoo}, "state_dict": {}}, HubPlace("ann/own"), None, None)
    assert "6 parameters in 1 tensor " in card
    assert "These files name `own.Mine`, which is not part of paramgen" in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# ann/own"]
    assert r"zoo x \# \<b\>Owned\</b\> \| \[click\](http://x) \|" in card
    assert "The author has not named a licence" in card


def test_zoo_is_pushed_and_pulled_with_every_file_checked(
    fitted: Fitted, account: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["zoo", "push", "--zoo", str(fitted.zoo), "--repo", "datasets/ann/zoo"]
    assert main(push) == 0
    repository = account.repositories["datasets/ann/zoo"]
    files = dict(repository.commits[repository.refs["main"]])
    assert "paramgen zoo pull --repo hf://datasets/ann/zoo" in files["README.md"].decode()
    assert {"zoo.json", "run0000_step0000000.safetensors"} <= files.keys()
    assert repository.lfs == {name for name in files if name.endswith(".safetensors")}
    assert main(["zoo", "pull", "--repo", "hf://datasets/ann/zoo", "--out", "zoo"]) == 0
    assert torch.equal(Zoo("zoo").matrix(), Zoo(fitted.zoo).matrix())
    assert not [path for path in Path("zoo").rglob("*") if path.is_symlink() or path.name == ".cache"]
    assert "exists and is not empty" in refused(capsys, "zoo", "pull", "--repo", "datasets/ann/zoo", "--out", "zoo")

    damaged = files | {"run0001_step0000000.safetensors": files["run0000_step0000000.safetensors"]}
    repository.commit(damaged | {"evil.py": b"raise SystemExit", "run.sh": b"exit 1"})
    line = refused(capsys, "zoo", "pull", "--repo", "datasets/ann/zoo", "--out", "other")
    assert "1 of 6 networks are damaged" in line
    assert "run0001_step0000000.safetensors: checksum mismatch" in line
    assert not {"evil.py", "run.sh"} & {path.name for path in Path("other").iterdir()}

    smaller = Path(shutil.copytree(fitted.zoo, "smaller"))
    values = json.loads((smaller / "zoo.json").read_text())
    (smaller / values["entries"].pop()["file"]).unlink()
    (smaller / "zoo.json").write_text(json.dumps(values))
    assert main(["zoo", "push", "--zoo", str(smaller), "--repo", "datasets/ann/zoo"]) == 0
    kept = repository.commits[repository.refs["main"]]
    assert len([name for name in kept if name.startswith("run0")]) == 5  # networks that the zoo no longer has are gone
    assert "evil.py" in kept  # other files of the repository are not touched


def test_what_cannot_be_pushed_pulled_or_sampled_is_named(
    fitted: Fitted, account: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    push = ["generator", "push", "--ckpt_path", fitted.checkpoint, "--repo"]
    assert "hf://ann/nets already holds other files and no generator.ckpt" in refused(capsys, *push, "ann/nets")
    assert "names files in a repository" in refused(capsys, *push, "hf://ann/digits/generator.ckpt")
    assert "cannot read the model card nowhere.md" in refused(capsys, *push, "ann/new", "--card", "nowhere.md")
    pull = ["generator", "pull", "--out", "here", "--repo"]
    assert "hf://ann/nets holds no generator.ckpt" in refused(capsys, *pull, "ann/nets")
    assert "Unknown model repository 'ann/nothing'" in refused(capsys, *pull, "ann/nothing")
    assert not Path("here").exists()
    assert "no file matches '*.ckpt'" in refused(capsys, "sample", "--ckpt_path", "hf://ann/nets")
    account.add("ann/two", {"a.ckpt": b"", "b.ckpt": b""})
    assert "holds 2 checkpoints; choose one: a.ckpt, b.ckpt" in refused(capsys, "sample", "--ckpt_path", "hf://ann/two")
    assert "the file is empty" in refused(capsys, "sample", "--ckpt_path", "hf://ann/two/a.ckpt")
    assert "download it first, with paramgen zoo pull" in refused(capsys, "evaluate", "--zoo", "hf://ann/nets")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    account.add("ann/there", {})
    for repository in ("ann/new", "ann/there"):
        line = refused(capsys, *push, repository)
        assert "no valid token; log in with `hf auth login`, or set HF_TOKEN" in line
    assert "models/ann/new" not in account.repositories
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")  # the real user's
    assert f"no token for {account.url}: log in with `hf auth login`" in refused(capsys, *push, "ann/new")
