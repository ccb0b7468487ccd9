"""Asked against reached scores of prompted networks."""

from math import log10

import pytest
import torch

from paramgen.collect.single import main as collect
from paramgen.core.io import read_json
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo
from paramgen.report.asked import asked_picture
from paramgen.studies.prompts import PromptedScores, asked_and_reached, prompted_scores, write_prompts
from paramgen.tasks.vision.classification import ClassificationTask


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    task = ClassificationTask(network="mlp", network_args={"hidden": [8]})
    out = str(tmp_path_factory.mktemp("zoo") / "zoo")
    return collect(task, out, mode="seeds", runs=3, checkpoints=4, save_every=6, epochs=2, val_runs=1)


def drawn(zoo, folder, index, prompt, **info):
    about = SampleInfo(generator="DiT", checkpoint="fits/gpt/last.ckpt", prompt=prompt, **info)
    return write_samples(folder, [zoo.full(i) for i in index], about)


def test_reached_scores_are_those_of_the_networks(zoo, tmp_path):
    folders = [
        drawn(zoo, tmp_path / "low", [3, 7], {"val.loss": 0.5}),
        drawn(zoo, tmp_path / "high", [0], {"val.loss": 2.0}, guidance_scale=2.0),
        drawn(zoo, tmp_path / "free", [0], None),
        drawn(zoo, tmp_path / "both", [0], {"val.loss": 1.0, "val.accuracy": 0.5}),
    ]
    low, high = prompted_scores("raw", 0, zoo, folders)
    recorded = [entry.scores["val"]["loss"] for entry in zoo.entries]
    assert low.reached == pytest.approx([recorded[3], recorded[7]], rel=1e-4)
    assert high.reached == pytest.approx([recorded[0]], rel=1e-4)
    assert low.range == [min(recorded[:8]), max(recorded[:8])]  # of the training networks
    assert (low.row, high.row, high.asked) == ("gpt", "gpt, guidance 2", 2.0)


def test_networks_without_a_score_are_counted_in_a_warning(zoo, tmp_path, caplog):
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in zoo.full(0).items()}
    about = SampleInfo(generator="DiT", checkpoint="fits/gpt/last.ckpt", prompt={"val.loss": 0.5})
    folder = write_samples(tmp_path / "some", [zoo.full(3), broken], about)
    (found,) = prompted_scores("raw", 0, zoo, [folder])
    assert len(found.reached) == 1
    assert "1 of 2 networks have no val.loss and are left out" in caplog.text


def test_figures_are_means_over_seeds():
    found = [
        PromptedScores(
            "raw", seed, row, "val.loss", asked, [asked + seed + shift, asked + seed - shift], [0.1, 2.0 + seed]
        )
        for seed in (0, 1)
        for row, shift in (("a", 0.1), ("b", 0.2))
        for asked in (1.0, 0.5)
    ]
    values = asked_and_reached(found, "title")
    (panel,) = values["panels"]
    assert panel["range"] == [0.1, 2.5]
    assert [row["name"] for row in panel["rows"]] == ["a", "b"]
    assert panel["rows"][0]["asked"] == [0.5, 1.0]
    assert panel["rows"][0]["mean"] == pytest.approx([1.0, 1.5])
    assert panel["rows"][0]["std"] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert (values["seeds"], values["networks"]) == (2, 2)


def test_spread_of_one_seed_is_that_of_its_networks():
    (panel,) = asked_and_reached([PromptedScores("raw", 0, "a", "val.loss", 1.0, [1.0, 3.0], [0.1, 2.0])], "t")[
        "panels"
    ]
    assert panel["rows"][0]["std"] == [1.0]


def test_picture_and_page_are_written(tmp_path):
    found = [PromptedScores("raw & <b>", 0, "a", "val.loss", asked, [asked], [0.1, 2.0]) for asked in (0.05, 1.0)]
    data, picture, page = write_prompts(tmp_path, found, "A < B")
    assert read_json(data)["panels"][0]["rows"][0]["mean"] == [0.05, 1.0]
    assert picture.read_bytes().startswith(b"\x89PNG")
    html = page.read_text()
    assert "<td>0.05<td>0.05 ± 0" in html
    assert "raw &amp; &lt;b&gt;" in html
    assert "A &lt; B" in html
    assert "http" not in html


def test_spread_of_scores_is_drawn_in_full_and_of_losses_down_to_half_the_mean():
    for prompt, low in (("val.accuracy", -0.1), ("val.loss", log10(0.2))):
        found = [PromptedScores("z", 0, "a", prompt, asked, [-0.1, 0.9], [0.1, 1.0]) for asked in (0.2, 0.8)]
        (panel,) = asked_picture(asked_and_reached(found, "t")).panels
        (ribbon,) = [mark for mark in panel.marks if mark.mark == "ribbon"]
        assert ribbon.low == pytest.approx([low, low])


def test_nothing_is_written_where_no_prompted_network_has_a_score(tmp_path):
    assert write_prompts(tmp_path, [], "t") == []
    assert write_prompts(tmp_path, [PromptedScores("z", 0, "a", "val.loss", 0.1, [], [0.1, 1.0])], "t") == []
    assert not [*tmp_path.iterdir()]


def test_dashed_line_is_where_reached_and_asked_are_equal():
    found = [PromptedScores("digits", 0, "a", "val.loss", asked, [0.2], [0.1, 1.0]) for asked in (0.01, 10.0)]
    (panel,) = asked_picture(asked_and_reached(found, "t")).panels
    (line,) = [mark for mark in panel.marks if mark.mark == "line" and mark.dashed]
    assert line.x == line.y == pytest.approx([-2, 1])  # logarithms
    for axis in (panel.x, panel.y):
        low, high = axis.limits()
        assert low < -2
        assert high > 1
    assert [mark.at for mark in panel.marks if mark.mark == "rule"] == pytest.approx([-1, 0])
