import errno
import json
import os
import shlex
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from matplotlib.figure import Figure

from measured import folder_of, make_zoo
from paramgen.cli.main import main
from paramgen.core.zoo import Zoo


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
        "strips.png",
        "plane.png",
        "novelty.png",
        "alike.png",
        "map.png",
    }
    results = json.loads((out / "results.json").read_text())
    jsonschema.validate(
        results, json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )
    assert results["generators"]["drawn"]["seed"] == 4
    said = capsys.readouterr().out
    assert all(row["name"] in said for row in results["rows"])
    assert "copies with small changes" in " ".join(said.split())


def test_results_are_written_when_all_else_is_there(zoo, samples, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    monkeypatch.setattr(Figure, "savefig", full)
    assert main(["evaluate", "--zoo", str(zoo.path), "--samples", str(samples), "--out", str(out), "--n", "3"]) == 2
    assert "strips.png: the disk is full" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["report.html"]


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
    for key in ("against", "flags"):
        assert [r[key] for r in first["rows"]] == [r[key] for r in second["rows"]]
    aligned = [[r["values"]["nn_ratio_aligned"] for r in found["rows"]] for found in (first, second)]
    assert aligned[0] == aligned[1]
    assert first["rows"][0]["values"]["nn_ratio_aligned"] == pytest.approx(1)


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
        (["--zoo", "nowhere"], "Unknown zoo 'nowhere'"),
        (["--samples", "absent"], "samples folder not found: 'absent'"),
        (["--n", "0"], "n is 0, expected 1 or more"),
        (["--n", "many"], "n"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--baselines", "gausian"], "Unknown baseline 'gausian'. Did you mean 'gaussian'"),
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
    assert "network_0000.safetensors: 'layers.0.weight' has shape (9, 64), expected (8, 64)" in capsys.readouterr().err


def test_an_empty_folder_is_refused_saying_what_was_expected(zoo, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    asked = ["evaluate", "--zoo", str(zoo.path), "--samples", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]
    assert main(asked) == 2
    assert "nothing holds no networks: expected samples.json or *.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nan_in_a_sample_is_counted_and_the_report_goes_on(zoo, tmp_path, capsys):
    weights = zoo.matrix([0, 1, 2]) * 1.01
    weights[1, 5] = float("nan")
    drawn = folder_of(zoo, weights, tmp_path / "drawn")
    asked = ["evaluate", "--zoo", str(zoo.path), "--samples", str(drawn), "--out", str(tmp_path / "out"), "--n", "3"]
    assert main([*asked, "--baselines", "[copy]"]) == 0
    results, html = (tmp_path / "out" / "results.json").read_text(), (tmp_path / "out" / "report.html").read_text()
    row = next(r for r in json.loads(results)["rows"] if r["name"] == "drawn")
    assert row["nonfinite"] == 1
    assert row["points"]["distance"][1] is None
    assert row["values"]["nn_ratio"] > 0
    assert "1 of its 3 networks holds NaN or inf" in html
    assert "1 of its 3 networks holds NaN" in " ".join(capsys.readouterr().out.split())
    jsonschema.validate(
        json.loads(results), json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )


def test_a_zoo_of_one_run_is_measured_without_inventing_held_out_runs(tmp_path, capsys):
    one = make_zoo(tmp_path / "one", runs=1, heldout=0, hidden=[8])
    asked = ["evaluate", "--zoo", str(one.path), "--out", str(tmp_path / "out"), "--n", "2", "--baselines", "[noise-1]"]
    assert main(asked) == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert "The zoo holds one training run, and none is held out: there is no held-out row and no zu" in html
    assert [r["name"] for r in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]] == [
        "zoo",
        "noise-1",
    ]
    assert "one training run" in " ".join(capsys.readouterr().out.split())
