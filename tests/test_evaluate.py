import json
import shlex
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from measured import folder_of, make_zoo
from paramgen.cli import main
from paramgen.zoo import Zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return make_zoo(tmp_path_factory.mktemp("evaluate") / "zoo", runs=6, heldout=2, hidden=[8])


@pytest.fixture
def samples(zoo, tmp_path) -> Path:
    return folder_of(zoo, zoo.matrix([0, 1, 2]) * 1.001, tmp_path / "drawn", sample_seconds=0.3, seed=4)


def test_one_command_writes_results_page_and_pictures(zoo, samples, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", "--zoo", str(zoo.path), "--samples", str(samples), "--out", str(out), "--n", "3"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "results.json",
        "report.html",
        "accuracy.png",
        "plane.png",
        "map.png",
        "dispersion.png",
    }
    results = json.loads((out / "results.json").read_text())
    jsonschema.validate(results, json.loads(files("paramgen").joinpath("results.schema.json").read_text()))
    assert results["generators"]["drawn"]["seed"] == 4
    said = capsys.readouterr().out
    assert all(row["name"] in said for row in results["rows"])
    assert "copies with small changes" in " ".join(said.split())


def test_the_recorded_command_gives_the_same_figures(zoo, samples, tmp_path):
    other = folder_of(zoo, zoo.matrix([2, 3, 1]), tmp_path / "other")
    folders = f"[{samples}, {other}]"
    args = [
        "evaluate",
        "--zoo",
        str(zoo.path),
        "--samples",
        folders,
        "--out",
        str(tmp_path / "a"),
        "--n",
        "3",
        "--seed",
        "5",
    ]
    assert main([*args, "--baselines", "[gaussian, noise-1]", "--aligned", "true"]) == 0
    first = json.loads((tmp_path / "a" / "results.json").read_text())
    program, *again = shlex.split(first["command"])
    assert program == "paramgen"
    again[again.index("--out") + 1] = str(tmp_path / "b")
    assert main(again) == 0
    second = json.loads((tmp_path / "b" / "results.json").read_text())
    assert [r["name"] for r in first["rows"]] == ["zoo", "held-out runs", "drawn", "other", "gaussian", "noise-1"]
    assert [r["points"] for r in first["rows"]] == [r["points"] for r in second["rows"]]
    assert [r["nn_ratio_aligned"] for r in first["rows"]] == [r["nn_ratio_aligned"] for r in second["rows"]]
    assert first["rows"][0]["nn_ratio_aligned"] == pytest.approx(1)


def test_a_zoo_is_measured_without_any_samples(zoo, tmp_path):
    out = tmp_path / "out"
    assert main(["evaluate", "--zoo", str(zoo.path), "--out", str(out), "--n", "2", "--baselines", "none"]) == 0
    assert [r["name"] for r in json.loads((out / "results.json").read_text())["rows"]] == ["zoo", "held-out runs"]


def spoil(folder: Path) -> None:
    file = folder / "network_0001.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--zoo", "nowhere"], "no zoo 'nowhere'"),
        (["--samples", "absent"], "no folder of samples 'absent'"),
        (["--n", "0"], "n is 0, expected 1 or more"),
        (["--n", "many"], "n"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--baselines", "gausian"], "no baseline 'gausian'; nearest: gaussian"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(change, message, zoo, samples, tmp_path, capsys):
    out = tmp_path / "out"
    asked = {"--zoo": str(zoo.path), "--samples": str(samples), "--out": str(out)} | dict([change])
    assert main(["evaluate", *(word for pair in asked.items() for word in pair)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_damaged_sample_is_named_and_nothing_is_written(zoo, samples, tmp_path, capsys):
    spoil(samples)
    assert main(["evaluate", "--zoo", str(zoo.path), "--samples", str(samples), "--out", str(tmp_path / "out")]) == 2
    assert "network_0001.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_samples_of_another_architecture_are_refused(zoo, tmp_path, capsys):
    other = make_zoo(tmp_path / "other", runs=2, heldout=0, hidden=[9])
    wrong = folder_of(other, other.matrix([0]), tmp_path / "wrong")
    assert main(["evaluate", "--zoo", str(zoo.path), "--samples", str(wrong), "--out", str(tmp_path / "out")]) == 2
    assert (
        "network_0000.safetensors: 'layers.0.weight' has shape (9, 64), the networks of zoo 'zoo' have (8, 64)"
        in capsys.readouterr().err
    )
