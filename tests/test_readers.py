"""``paramgen zoo import`` of folders that other programs wrote: containers, prefixes, patterns, tables, dry runs, bad files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paramgen.cli.main import main
from paramgen.collect.readers.found import Found
from paramgen.collect.recorded_scores import recorded_scores
from paramgen.core.weight_files import find_state_dict, is_aside, wrapper_prefix
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def state(seed=0, prefix=""):
    return {prefix + name: tensor for name, tensor in network(seed).state_dict().items()}


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(content, path)
        elif isinstance(content, bytes | str):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            torch.save(content, path)
    return folder


def import_line(source, *more):
    return ["zoo", "import", "--source", str(source), "--out", str(source.parent / "zoo"), *more]


def imported(source, *more):
    assert main(import_line(source, *more)) == 0
    return Zoo(source.parent / "zoo")


def refused(capsys, source, *more):
    assert main(import_line(source, *more)) == 2
    assert not (source.parent / "zoo").exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def same(zoo, index, seed):
    return all(torch.equal(zoo.full(index)[name], tensor) for name, tensor in state(seed).items())


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "module", "weights"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_a_state_dict_is_found_in_its_container_and_without_the_prefix_of_wrappers(key, prefix):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    found = find_state_dict({"epoch": 3, key: state(prefix=prefix), "optimizer": optimizer}, "x.pt")
    assert wrapper_prefix(found) == prefix
    assert {name.removeprefix(prefix) for name in found} == set(state())


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"state_dict": state(), "state_dict_ema": state(1)}, "state_dict, state_dict_ema; choose one with --key"),
        ({"model": state(), "ema": {"model": state(1), "updates": 7}}, "model, ema.model; choose one with --key"),
        ({"student": state(), "teacher": state(1)}, "student, teacher; choose one with --key"),
    ],
)
def test_several_state_dicts_are_never_chosen_from_silently(saved, message):
    with pytest.raises(ParamgenError, match=message):
        find_state_dict(saved, "x.pt")
    for key, seed in zip(message.partition(";")[0].split(", "), (0, 1), strict=True):
        assert torch.equal(find_state_dict(saved, "x.pt", key)["0.weight"], state(seed)["0.weight"])
    with pytest.raises(ParamgenError, match=r"no state dict under 'emma'\. .*Available:"):
        find_state_dict(saved, "x.pt", "emma")


def test_names_that_the_network_has_keep_what_looks_like_a_prefix():
    own = {"model.0.weight", "model.0.bias"}
    assert wrapper_prefix(own, own) == ""
    assert wrapper_prefix([f"module.{name}" for name in own], own) == "module."
    assert wrapper_prefix(["model.a", "head.b"]) == ""


def test_ema_weights_are_imported_by_key_and_prefixes_are_said_to_be_removed(tmp_path, capsys):
    files = {
        f"step={i}.ckpt": {"state_dict": state(i, "model."), "state_dict_ema": state(i + 5, "model.")} for i in range(3)
    }
    source = write(tmp_path / "theirs", files)
    assert "step=0.ckpt holds several state dicts" in refused(capsys, source)
    zoo = imported(source, "--key", "state_dict_ema")
    assert same(zoo, 2, 7)
    assert "removed the prefix 'model.' from the names of tensors of 3 networks" in capsys.readouterr().err
    assert zoo.meta["recipe"]["key"] == "state_dict_ema"


def test_an_empty_prefix_keeps_the_names_of_the_files(tmp_path):
    zoo = imported(write(tmp_path / "theirs", {f"{i}.pt": state(i, "model.") for i in range(2)}), "--prefix", "")
    assert zoo.spec.names == list(state(prefix="model."))


def test_a_pattern_reads_runs_steps_scores_and_conditions_from_paths(tmp_path):
    files = {
        f"lr{lr}/run{run}/step{step}_acc{80 + run}.{step // 10}.pth": state(10 * run + step)
        for lr, run in ((0.1, 3), (0.1, 4), (0.02, 11))
        for step in (10, 20)
    }
    source = write(tmp_path / "theirs", {**files, "notes/other.pth": state()})
    pattern = "lr{condition.lr}/run{run}/step{step}_acc{val.accuracy}.pth"
    zoo = imported(source, "--pattern", pattern, "--heldout_networks", "2")
    assert [(e.run, e.step, e.split) for e in zoo.entries] == [
        (run, step, "heldout" if run == 11 else "train") for run in (3, 4, 11) for step in (10, 20)
    ]
    assert [e.condition for e in zoo.entries][::2] == [[0.1], [0.1], [0.02]]
    assert [e.scores["val"]["score"] for e in zoo.entries[:2]] == pytest.approx([0.831, 0.832])  # percent in the names
    assert zoo.score.name == "accuracy"
    assert zoo.meta["condition"] == {"kind": "recorded", "dim": 1, "fields": [{"name": "lr", "kind": "number"}]}
    assert all(same(zoo, i, 10 * e.run + e.step) for i, e in enumerate(zoo.entries))


def test_words_in_a_condition_become_one_hot_and_info_says_so(tmp_path, capsys):
    source = write(tmp_path / "theirs", {f"{word}/{i}.pt": state(i) for i, word in enumerate(("cat", "dog", "ant"))})
    zoo = imported(source, "--pattern", "{condition}/*.pt")
    assert {e.run: e.condition for e in zoo.entries} == {0: [1, 0, 0], 1: [0, 1, 0], 2: [0, 0, 1]}
    assert zoo.meta["recipe"]["runs"] == {"0": "condition=ant", "1": "condition=cat", "2": "condition=dog"}
    assert main(["zoo", "info", "--zoo", str(zoo.path)]) == 0
    assert "condition 3 numbers: one of ant, cat, dog" in capsys.readouterr().out


def test_a_table_gives_what_the_paths_do_not(tmp_path):
    source = write(tmp_path / "theirs", {f"{name}.pt": state(i) for i, name in enumerate("abc")})
    rows = [
        "path,run,step,split,condition.depth,val.psnr,val.loss,test.psnr",
        "c.pt,7,1,val,3,30.5,0.1,99",
        "a.pt,5,0,train,2,,0.2,",
    ]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    zoo = imported(source, "--table", str(tmp_path / "table.csv"))
    assert [(e.run, e.step, e.split, e.condition) for e in zoo.entries] == [(5, 0, "train", [2]), (7, 1, "val", [3])]
    assert [e.scores for e in zoo.entries] == [
        {"val": {"score": None, "loss": 0.2}},
        {"val": {"score": 30.5, "loss": 0.1}},
    ]
    assert (zoo.score.name, zoo.score.unit) == ("PSNR", "dB")
    assert same(zoo, 1, 2)


@pytest.mark.parametrize("values", [("nan", "90"), ("90", "nan")])
def test_accuracies_in_percent_are_fractions_wherever_one_is_missing(values):
    founds = [Found(v, Path(v), scores={"val": {"accuracy": float(v)}}) for v in values]
    scores = recorded_scores(founds, lower_is_better=False, margin=0.01).scores
    assert scores[values.index("90")]["val"]["score"] == pytest.approx(0.9)


def test_a_dry_run_shows_what_would_be_taken_and_writes_nothing(tmp_path, capsys):
    files = {f"run{i}/step{i}_acc0.{i}.pt": state(i) for i in range(1, 4)}
    files["run4/step0_acc0.4.pt"] = b"PK\x03\x04 damaged"
    files["run5/step0_acc0.5.pt"] = {"0.weight": torch.zeros(4, 4)}
    files["run6/step0_acc0.6.pt"] = {name: t * torch.nan for name, t in state().items()}
    files["run1/optimizer.pt"] = state()
    source = write(tmp_path / "theirs", files)
    before = sorted(tmp_path.rglob("*"))
    pattern = ("--pattern", "run{run}/step{step}_acc{val.accuracy}.pt")
    assert main(import_line(source, "--dry_run", *pattern)) == 0
    shown, said = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    for text in (
        "run3/step3_acc0.3.pt",
        "0.weight",
        "3x4",
        "damaged or truncated",
        "NaN",
        "3 networks of 23",
        "3 cannot be taken",
    ):
        assert text in " ".join(shown.split())
    assert "left aside, as they hold no network: run1/optimizer.pt" in said
    assert "run4" in refused(capsys, source, *pattern)
    zoo = imported(source, *pattern, "--skip_bad")
    assert [e.run for e in zoo.entries] == [1, 2, 3]
    assert sorted(zoo.meta["recipe"]["skipped"]) == [name for name in sorted(files) if name[3] in "456"]
    assert "skipped run6/step0_acc0.6.pt: " in capsys.readouterr().err


def test_most_files_are_not_left_out_because_of_the_first(tmp_path, capsys):
    files = {"a.pt": {"other": torch.ones(3)}, **{f"n{i}.pt": state(i) for i in range(3)}}
    source = write(tmp_path / "theirs", files)
    assert "3 of 4 networks do not fit the first one, a.pt; choose" in refused(capsys, source, "--skip_bad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "{rum}.pt"], "unknown field 'rum'. Did you mean 'run'?"),
        (["--pattern", "{run}/{run}.pt"], "has the field 'run' twice"),
        (["--pattern", "{run.pt"], "unbalanced braces"),
        (["--pattern", "x{run}.pt"], "matches none of 3 networks in .*, for example 'd/0_1.pt'"),
        ([], "no .safetensors, .pt, .pth, .ckpt, .bin file in .*; 3 are in folders below it: take them with --pattern"),
        (["--pattern", "d/{step}_*.pt"], "d/1_1.pt and d/1_2.pt are both step 1 of run 0"),
        (["--pattern", "d/{run}_{step}.pt", "--val_networks", "1"], "val_networks is 1, expected whole runs: 0 or 2"),
        (["--pattern", "d/{run}_{step}.pt", "--condition", "[lr]"], "no 'lr' is recorded. None available."),
        (["--table", "none.csv"], "none.csv: no such file"),
        (["--layout", "rai"], "Unknown layout 'rai'."),
        (["--pattern", "d/{run}_{step}.pt", "--key", "ema"], "It holds a bare state dict; leave --key out"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(options, message, tmp_path, capsys):
    source = write(tmp_path / "theirs", {f"d/{name}.pt": state(i) for i, name in enumerate(("0_1", "1_1", "1_2"))})
    with pytest.raises(ParamgenError, match=message):
        raise ParamgenError(refused(capsys, source, *options))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("run,step\n1,2", "has no column 'path'"),
        ("path,step\n", "lists no network: expected a header with the column 'path', and a row per network"),
        ("path,ruu\na.pt,1", "unknown field 'ruu'. Did you mean 'run'?"),
        ("path,step\na.pt,x", "step is 'x', expected a number"),
        ("path,step\na.pt,1.5", "step is '1.5', expected a whole number"),
        ("path,seed\na.pt,nan", "seed is 'nan', expected a whole number"),
        ("path,step\na.pt,-1", "a.pt: step is -1, expected 0 or more"),
        (
            "path,condition.lr\na.pt,inf",
            "a.pt: condition 'lr' is inf, expected finite numbers; choose others with --condition",
        ),
        ("path,step\na.pt,1\na.pt,2", "'a.pt' is there twice"),
        ("path,step\nb.pt,1", "names 'b.pt', which is not in"),
        ("path,step\na.pt,1,2", "line 2: expected 2 cells"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(rows, message, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(rows)
    assert message in refused(capsys, write(tmp_path / "theirs", {"a.pt": state()}), "--table", str(tmp_path / "t.csv"))


def test_states_of_optimizers_and_programs_are_no_networks():
    aside = [
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "training_args.bin",
        "scaler.pt",
        "x_optim.pt",
    ]
    assert all(is_aside(Path(name)) for name in aside)
    assert not any(
        is_aside(Path(name)) for name in ("model.pt", "optimal.pt", "sgd_0.pt", "optimum_net.pt", "scaled.pt")
    )


def test_networks_that_are_equal_are_said_to_be(tmp_path, capsys):
    source = write(tmp_path / "theirs", {f"n{i}.pt": state(i // 2) for i in range(3)})
    assert len(imported(source)) == 3
    assert "n1.pt is the same network as n0.pt; both are taken" in capsys.readouterr().err
    assert main(["zoo", "import", "--source", str(source / "n0.pt"), "--dry_run"]) == 2
    assert "n0.pt' is one file; give the folder" in capsys.readouterr().err


def test_files_of_the_recipe_name_every_network(tmp_path):
    zoo = imported(write(tmp_path / "theirs", {f"n{i}.safetensors": state(i) for i in range(2)}))
    recipe = json.loads((zoo.path / "zoo.json").read_text())["recipe"]
    assert (recipe["files"], recipe["layout"]) == (["n0.safetensors", "n1.safetensors"], "folder")
