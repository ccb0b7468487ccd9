"""A scorer of the user's own by dotted name: networks of any class, scored one by one by a function."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

import own_scorers
from gaussian_backend import GaussianBackend
from own_scorers import Net
from paramgen.cli.main import main
from paramgen.core.params import state_tensors
from paramgen.core.score import ScoreSpec
from paramgen.core.trust import UntrustedError, foreign_classes, import_function
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.evaluate import evaluate
from paramgen.generators.callbacks import _summary
from paramgen.tasks import FieldTask, ScorerTask, load_task, task_of
from paramgen.tasks.score import Scores, without_score

UNSCORED = "1 of 4 networks have no score on val: it could not be computed, or is NaN or infinite."
SCORER = ["--task", "ScorerTask", "--task.network", "own_scorers.Net"]


@pytest.fixture(autouse=True)
def _no_calls():
    own_scorers.CALLS.clear()


def networks(biases):
    """Networks that :func:`own_scorers.bias` gives these scores."""
    torch.manual_seed(0)
    made = [Net() for _ in biases]
    for network, value in zip(made, biases, strict=True):
        torch.nn.init.constant_(network.out.bias, value)
    return [state_tensors(network) for network in made]


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    for i, state in enumerate(networks([0.5, -0.25, 2.0, 1.0])):
        torch.save(state, f"theirs/n{i}.pt")
    return ["zoo", "import", "--source", "theirs", "--out", "zoo", *SCORER]


def val_scores(zoo):
    return [entry.scores["val"]["score"] for entry in zoo.entries]


def test_an_imported_zoo_holds_what_the_function_returned_once_a_network(theirs, capsys):
    line = [*theirs, "--task.scorer", "own_scorers.bias", "--task.name", "bias", "--task.higher_is_better", "false"]
    assert main(line) == 0
    zoo = Zoo("zoo")
    assert val_scores(zoo) == [0.5, -0.25, 2.0, 1.0]
    assert [entry.scores["train"]["score"] for entry in zoo.entries] == val_scores(zoo)
    assert own_scorers.CALLS == ["bias"] * 4  # one score for both splits, also of the network that is tried first
    assert (zoo.score.name, zoo.score.higher_is_better) == ("bias", False)
    assert (zoo[0]["out.bias"] == 0.5).all()  # what the function does to its network is not stored
    capsys.readouterr()
    assert main(["zoo", "info", "--zoo", "zoo"]) == 0
    assert "bias mean 0.81, from −0.25 to 2.00" in capsys.readouterr().out


def test_a_function_with_a_second_argument_is_told_the_split(theirs):
    assert main([*theirs, "--task.scorer", "own_scorers.by_split"]) == 0
    entry = Zoo("zoo").entries[2]
    assert {part: entry.scores[part]["score"] for part in ("train", "val")} == {"train": 12.0, "val": 22.0}
    assert own_scorers.CALLS.count("train") == own_scorers.CALLS.count("val") == 4
    assert "test" not in own_scorers.CALLS


def test_a_network_that_the_function_raises_on_is_named_and_the_others_go_on(theirs, capsys):
    assert main([*theirs, "--task.scorer", "own_scorers.positive_only"]) == 2
    said = capsys.readouterr().err
    assert said.count("n1.pt has no score: own_scorers.positive_only raised ValueError: the bias is negative") == 1
    assert f"warning: {UNSCORED}" in said
    assert "1 of 4 networks have no score, because the scorer raised an error: n1.pt. zoo is complete" in said
    saved = json.loads(Path("zoo/zoo.json").read_text())
    assert [entry["scores"]["val"]["score"] for entry in saved["entries"]] == [0.5, None, 2.0, 1.0]
    assert saved["warnings"] == [UNSCORED]


def test_a_comparison_goes_on_after_a_function_raised_and_evaluates_these_networks_again(theirs, capsys):
    for name, scorer in (("raises", "positive_only"), ("scores", "bias")):
        main([*theirs, "--task.scorer", f"own_scorers.{scorer}", "--out", name])
    sources = json.dumps({name: {"path": name} for name in ("raises", "scores")})
    line = ["compare", "--zoos", sources, "--out", "compared", "--n", "4", "--baselines", "[copy]"]
    capsys.readouterr()
    for _ in range(2):
        assert main(line) == 2
        assert capsys.readouterr().err.strip().endswith("name: compared/raises. The comparison in compared is complete")
        assert set(json.loads(Path("compared/comparison.json").read_text())["scores"]) == {"raises", "scores"}
    results = json.loads(Path("compared/raises/results.json").read_text())
    assert "own_scorers.positive_only raised ValueError: the bias is negative" in " ".join(results["notes"])


def test_nan_is_no_score_and_no_error(theirs, capsys):
    task = ScorerTask("own_scorers.Net", "own_scorers.nothing")
    found = task.evaluate(networks([1.0, 2.0]), "val")
    assert found.value.isnan().all()
    assert not found.failed
    assert without_score(found) == {0: "the score is nan", 1: "the score is nan"}
    assert main([*theirs, "--task.scorer", "own_scorers.nothing"]) == 0
    assert "n3.pt has no score: the score is nan" in capsys.readouterr().err
    assert json.loads(Path("zoo/zoo.json").read_text())["warnings"] == [UNSCORED.replace("1 of 4", "4 of 4")]
    assert found.items is None
    assert found.predictions is None


def test_scores_of_several_networks_are_in_their_order():
    task = ScorerTask("own_scorers.Net", "own_scorers.positive_only", {"width": 3}, margin=0.5)
    found = task.evaluate(networks([3.0, -1.0, 0.25]), "test")
    assert found.value[[0, 2]].tolist() == [3.0, 0.25]
    assert math.isnan(found.value[1])
    assert list(found.failed) == [1]


def test_a_task_is_made_again_from_what_it_records():
    task = ScorerTask("own_scorers.Net", "own_scorers.bias", {"width": 5}, "loss", "percent", False, 0.2, "log")
    again = load_task(json.loads(json.dumps(task.config())), trust=True)
    assert again.config() == task.config()
    assert again.score == task.score
    assert again.build().out.out_features == 5


def test_named_networks_need_their_shape():
    with pytest.raises(ParamgenError, match="needs in_shape in network_args"):
        ScorerTask("mlp", "own_scorers.bias", {"num_classes": 10}).build()
    sized = {"num_classes": 10, "in_shape": [1, 8, 8]}
    assert sum(p.numel() for p in ScorerTask("mlp", "own_scorers.bias", sized).build().parameters()) == 5018


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ("own_scorers.absent", "cannot import scorer 'own_scorers.absent'"),
        ("own_scorers.NO_FUNCTION", "scorer 'own_scorers.NO_FUNCTION' is 3, expected a function"),
        ("bias", "cannot import scorer 'bias': expected package.module.function"),
    ],
)
def test_what_is_no_function_is_refused_in_a_line(scorer, expected, theirs, capsys):
    assert main([*theirs, "--task.scorer", scorer]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not Path("zoo").exists()


def test_a_scorer_has_no_training_data_and_collect_says_so(theirs, capsys):
    assert main(["collect", *SCORER, "--task.scorer", "own_scorers.bias", "--out", "collected"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "ScorerTask has no data, so nothing can be trained with it" in line
    assert not Path("collected/zoo.json").exists()


def test_a_fit_on_a_scored_zoo_watches_the_score(theirs, capsys):
    assert main([*theirs, "--task.scorer", "own_scorers.by_split"]) == 0
    own_scorers.CALLS.clear()
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--quality.sample_every", "1"]
    line = ["fit", "--model", GaussianBackend.__name__, "--data.zoo", "zoo", "--trainer.max_steps", "2", *quiet]
    assert main(line) == 0
    assert set(own_scorers.CALLS) == {"val"}
    assert "samples are not scored" not in capsys.readouterr().err


def test_a_scorer_that_a_file_names_is_never_imported_without_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strange_scorers.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef score(network): return 1.0\n"
    )
    for path in ("strange_scorers.score", "paramgen.core.io.sha256", "os.system"):
        config = {"class_path": "ScorerTask", "init_args": {"network": "mlp", "scorer": path}}
        with pytest.raises(UntrustedError, match=f"names the function {path}"):
            load_task(config)
    assert not Path("ran").exists()
    assert "strange_scorers" not in sys.modules
    config["init_args"]["scorer"] = "strange_scorers.score"
    assert foreign_classes(config) == {"strange_scorers.score"}


def test_a_typed_scorer_of_the_working_folder_is_remembered_with_its_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("typed_scorers.py").write_text("def score(network):\n    return network.out.bias.mean()\n")
    Path("theirs").mkdir()
    for i, state in enumerate(networks([1.0, 2.0])):
        torch.save(state, f"theirs/n{i}.pt")
    line = ["zoo", "import", "--source", "theirs", "--out", "zoo", *SCORER, "--task.scorer", "typed_scorers.score"]
    assert main(line) == 0
    assert val_scores(Zoo("zoo")) == [1.0, 2.0]
    sys.modules.pop("typed_scorers")
    assert task_of(Zoo("zoo")).evaluate(networks([4.0]), "val").value.tolist() == [4.0]
    Path("zoo").rename("moved")
    with pytest.raises(UntrustedError, match="which is not part of paramgen"):
        task_of(Zoo("moved"))


def test_import_function_finds_what_import_class_would():
    assert import_function("own_scorers.bias", "scorer") is own_scorers.bias


def test_a_scored_zoo_is_evaluated_without_items_or_predictions(theirs, capsys):
    assert main([*theirs, "--one_run", "false", "--task.scorer", "own_scorers.bias", "--task.name", "bias"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--zoo", "zoo", "--out", "report", "--n", "3", "--baselines", "all"]) == 0
    assert "bias" in capsys.readouterr().out
    results = json.loads(Path("report/results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert results["score"]["name"] == "bias"
    assert rows["zoo"]["values"]["mean"] == pytest.approx(0.8125)
    assert rows["zoo"]["values"]["best"] == 2
    assert rows["random-init"]["n"] == 3
    assert "finetuned-copy" not in rows
    assert rows["zoo"]["values"]["same_predictions"] is None


def test_networks_that_could_not_be_scored_are_counted_in_the_report(theirs, capsys):
    assert main([*theirs, "--one_run", "false", "--task.scorer", "own_scorers.positive_only"]) == 2
    assert main(["evaluate", "--zoo", "zoo", "--out", "report", "--n", "3", "--baselines", "none"]) == 2
    assert "raised ValueError: the bias is negative). The report in report is complete" in capsys.readouterr().err
    results = json.loads(Path("report/results.json").read_text())
    assert any(
        "1 of 4 networks of the zoo have no score (network 1: own_scorers.positive_only raised ValueError" in note
        for note in results["notes"]
    )
    assert results["rows"][0]["points"]["score"] == [0.5, None, 2.0, 1.0]
    assert results["rows"][0]["values"]["mean"] is None  # not the mean of the others
    assert results["good_from"] == pytest.approx(3.5 / 3 - 0.01)


def test_a_zoo_without_a_task_is_evaluated_with_a_scorer_that_is_typed(theirs, capsys):
    assert main([*theirs[: -len(SCORER)], "--one_run", "false"]) == 0
    line = ["evaluate", "--zoo", "zoo", "--out", "report", "--n", "3", "--baselines", "[copy]"]
    assert main([*line, *SCORER, "--task.scorer", "own_scorers.bias"]) == 0
    results = json.loads(Path("report/results.json").read_text())
    assert results["rows"][0]["values"]["mean"] == pytest.approx(0.8125)
    assert results["task"]["init_args"]["scorer"] == "own_scorers.bias"
    assert "own_scorers.bias" in results["command"]
    capsys.readouterr()
    wide = [*SCORER, "--task.scorer", "own_scorers.bias", "--task.network_args", "{width: 7}"]
    assert main([*line, *wide]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "zoo 'zoo': 'out.weight' has shape (3, 4), expected (7, 4)" in said


def test_a_scorer_and_a_network_are_enough(theirs, capsys):
    line = [*theirs[: -len(SCORER)], "--scorer", "own_scorers.bias"]
    assert main([*line, "--network", "own_scorers.Net", "--lower_is_better", "true", "--margin", "0.5"]) == 0
    zoo = Zoo("zoo")
    assert val_scores(zoo) == [0.5, -0.25, 2.0, 1.0]
    assert (zoo.score.name, zoo.score.higher_is_better, zoo.score.margin) == ("bias", False, 0.5)
    capsys.readouterr()
    for more, expected in (
        ([], "--scorer needs --network: the class of the networks"),
        (
            ["--network", "own_scorers.Net", *SCORER, "--task.scorer", "own_scorers.bias"],
            "a task or a scorer, not both",
        ),
    ):
        assert main([*line, *more]) == 2
        assert expected in capsys.readouterr().err


class NoScoreFromTwo(FieldTask):
    """A metric that is NaN for the networks of uneven places."""

    def evaluate(self, states, split, most=None, device="cpu"):
        values = [float("nan") if state["last.bias"].item() < 0 else 1.0 for state in states]
        return Scores(torch.tensor(values, dtype=torch.float64))


def test_a_metric_that_is_nan_is_said_and_counted_and_no_mean_hides_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = ["--task", f"{__name__}.NoScoreFromTwo", "--task.hidden", "4", "--task.resolution", "4"]
    assert (
        main(
            ["collect", *task, "--mode", "seeds", "--runs", "8", "--checkpoints", "1", "--epochs", "1", "--out", "zoo"]
        )
        == 0
    )
    scores = val_scores(Zoo("zoo"))
    missing = scores.count(None)
    assert 0 < missing < 8
    said = capsys.readouterr()
    assert f"warning: {missing} of 8 networks have no score on val" in said.err
    assert f"({8 - missing} of them scored)" in said.out
    results = evaluate(Zoo("zoo"), NoScoreFromTwo(hidden=4, resolution=4), baselines=[]).to_dict()
    assert any(f"{missing} of 8 networks of the zoo have no score" in note for note in results["notes"])
    assert results["rows"][0]["values"]["mean"] is None
    assert _summary(ScoreSpec(), torch.tensor([0.5, float("nan")])) == {
        "sample/score_best": 0.5,
        "sample/without_score": 1,
    }


class NoData(FieldTask):
    def data(self, split):
        everything = super().data(split)
        return {4: everything.take(torch.arange(0)), 5: (everything.inputs, everything.targets)}[self.hidden]


class NoFile(FieldTask):
    def data(self, split):
        raise FileNotFoundError(2, "No such file or directory", "table.csv")


@pytest.mark.parametrize(
    ("name", "hidden", "expected"),
    [
        ("NoData", "4", "NoData has no train data: data('train') returned a split without items"),
        ("NoData", "5", "NoData.data('train') returned (tensor("),
        ("NoFile", "4", "NoFile cannot read its train data: [Errno 2] No such file or directory: 'table.csv'"),
    ],
)
def test_a_task_without_data_is_one_line(name, hidden, expected, tmp_path, capsys):
    line = ["collect", "--task", f"{__name__}.{name}", "--task.hidden", hidden, "--out", str(tmp_path / "zoo")]
    assert main(line) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert expected in said
    assert not (tmp_path / "zoo" / "zoo.json").exists()


class SetScore(FieldTask):
    """A score of all outputs together, as FID and mAP are: the spread of the picture that a network draws."""

    score = ScoreSpec("spread", unit="plain", axis="linear")

    def evaluate(self, states, split, most=None, device="cpu"):
        outputs = [functional_call(self.build(), state, self.data(split).inputs) for state in states]
        return Scores(torch.stack([output.std() for output in outputs]).double().detach())


def test_a_score_of_no_single_items_overrides_one_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = ["--task", f"{__name__}.SetScore", "--task.hidden", "4", "--task.resolution", "4"]
    recipe = ["--mode", "seeds", "--runs", "4", "--checkpoints", "1", "--epochs", "2", "--heldout_runs", "1"]
    assert main(["collect", *task, *recipe, "--out", "zoo"]) == 0
    zoo, made = Zoo("zoo"), SetScore(hidden=4, resolution=4)
    expected = made.evaluate([zoo.full(i) for i in range(4)], "val").value
    assert val_scores(zoo) == pytest.approx(expected.tolist())
    line = ["evaluate", "--zoo", "zoo", "--out", "report", "--n", "2", "--baselines", "[soup-2]", "--finetune", "true"]
    assert main(line) == 0
    results = json.loads(Path("report/results.json").read_text())
    own = made.evaluate([zoo.full(i) for i in zoo.indices("train")], "test").value
    assert results["rows"][0]["points"]["score"] == pytest.approx(own.tolist(), rel=1e-5)
    assert results["score"]["name"] == "spread"
