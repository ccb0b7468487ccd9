"""Seen codes with bits turned: which codes are asked for, what is scored, what is refused."""

import json

import pytest
import torch

from paramgen.cli.main import main as paramgen
from paramgen.collect.multi import main as collect_tasks
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.evaluation.condition_baselines import nearest_task
from paramgen.evaluation.pool import seen_tasks
from paramgen.studies.flips import changes
from paramgen.tasks import RelabelFamily, RotatedFamily, load_family, score_family
from paramgen.tasks.conditions import CodeCondition


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("flips") / "zoo"
    family = RelabelFamily(network_args={"hidden": [8]}, seen=40, unseen=["0000011111"])
    collect_tasks(family, str(out), CodeCondition(dim=10), steps=150, score=False)
    return Zoo(out)


def test_only_codes_that_are_no_seen_ones_are_asked_for():
    found = changes(["100", "110", "001", "011"], 5)  # 100 and 011, 110 and 001 are inverses
    assert found == []
    found = changes(["100", "110"], 5)
    assert {c.code for c in found if c.kind == "one bit" and c.seen == "100"} == {"101"}  # 000 is no code, 110 is seen
    assert [(c.seen, c.code) for c in found if c.kind == "all bits"] == [("100", "011"), ("110", "001")]
    assert changes(["100", "110"], 1) == [c for c in found if c.seen == "100"]


def test_networks_are_scored_on_the_new_codes_class_by_class(zoo, tmp_path, capsys):
    assert paramgen(["flips", "--zoo", str(zoo.path), "--codes", "3", "--out", str(tmp_path)]) == 0
    values = json.loads((tmp_path / "flips.json").read_text())
    rows = {row["name"]: row for row in values["rows"]}
    assert rows.keys() == {"unchanged", "nearest", "ridge"}
    family = load_family(zoo.task_config)
    asked = values["changes"]
    codes = sorted({c["code"] for c in asked} - set(family.seen))
    wider = RelabelFamily(network_args={"hidden": [8]}, seen=family.seen, unseen=codes)
    seen = seen_tasks(zoo)
    weights = nearest_task(seen, torch.tensor([[float(bit) for bit in c["code"]] for c in asked]))
    states = [zoo.spec.unflatten(row) for row in weights]
    accuracy = score_family(zoo, states, [c["code"] for c in asked], "test", wider)
    for kind in ("none", "one bit", "all bits"):
        expected = accuracy[[c["kind"] == kind for c in asked]].mean()
        assert rows["nearest"][kind] == pytest.approx(float(expected), abs=1e-5)
    # a network that did not change is right on the old code, so wrong on every turned bit
    assert rows["unchanged"]["none"] + rows["unchanged"]["all bits"] == pytest.approx(1, abs=1e-5)
    assert rows["unchanged"]["turned"] < 0.3 < 0.8 < rows["unchanged"]["others"]
    assert "flipped class" in capsys.readouterr().out


def test_mistakes_are_said_in_one_line(zoo, tmp_path, capsys):
    rotated = RotatedFamily(seen=[0.0], unseen=[], network_args={"hidden": [4]})
    collect_tasks(rotated, str(tmp_path / "rotated"), CodeCondition(dim=2), steps=2, score=False)
    for path, more, said in (
        (tmp_path / "rotated", [], "RotatedFamily; only codes"),
        (zoo.path, ["--codes", "0"], "codes is 0"),
        (zoo.path, ["--per_code", "0"], "per_code is 0"),
        (zoo.path, ["--ckpt_path", json.dumps([str(tmp_path / "no.ckpt")])], "checkpoint not found"),
    ):
        assert paramgen(["flips", "--zoo", str(path), *more, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_scores_are_the_familys_own_in_its_unit_and_direction(zoo, tmp_path, capsys, monkeypatch):
    arguments = ["flips", "--zoo", str(zoo.path), "--codes", "2", "--split", "val", "--out", str(tmp_path)]
    assert paramgen(arguments) == 0
    assert "val accuracy, % on the new code" in capsys.readouterr().out
    accuracy = json.loads((tmp_path / "flips.json").read_text())["rows"]
    monkeypatch.setattr(RelabelFamily, "score", ScoreSpec("wrong share", "plain", higher_is_better=False))
    monkeypatch.setattr(RelabelFamily, "value", lambda self, items: 1 - items.double().mean(1))
    assert paramgen(arguments) == 0
    said = capsys.readouterr().out
    assert "val wrong share (lower is better) on the new code" in said
    assert "accuracy" not in said
    wrong = json.loads((tmp_path / "flips.json").read_text())
    assert wrong["score"]["name"] == "wrong share"
    for row, other in zip(accuracy, wrong["rows"], strict=True):
        for key in ("none", "one bit", "turned", "others", "all bits"):
            assert other[key] == pytest.approx(1 - row[key])
        assert f"{other['none']:.2f}" in said
