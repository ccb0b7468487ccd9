"""The command line, run in this process: every mistake is one line on stderr and exit code 2."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import gaussian_backend  # registers the backend
from conftest import vary, write_zoo
from paramgen.cli.commands.sample import main as sample
from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.cli.main import main
from paramgen.core.io import write_tensors
from paramgen.tasks import load_task

COLLECT = ["collect", "--config", "digits_mlp_trajectory", "--out", "nowhere"]
DIGITS = {"class_path": "paramgen.tasks.ClassificationTask", "init_args": {"dataset": "digits", "network": "mlp"}}


@pytest.fixture(autouse=True)
def bare_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["paramgen"])


@pytest.fixture
def config(tmp_path, tiny_zoo):
    """A whole fit in a YAML, a second long."""

    def write(**changes):
        whole = {
            "trainer": {
                "max_steps": 20,
                "accelerator": "cpu",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "logger": False,
            },
            "model": {"class_path": "GaussianBackend", "init_args": {"lr": 0.05}},
            "data": {"zoo": str(tiny_zoo.path), "batch_size": 3, "steps_per_epoch": 10},
            "checkpoint": {"dirpath": str(tmp_path / "fit")},
            "quality": {"sample_every": 0},
            **changes,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(whole))
        return str(path)

    return write


def refuses(capsys, *args) -> str:
    """The one line that a refused command prints."""
    assert main([str(a) for a in args]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paramgen: ")]
    assert len(lines) == 1
    return lines[0]


def test_help_imports_no_torch():
    code = "import sys; from paramgen.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in {**LIGHTNING, **FUNCTIONS})


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from paramgen.cli.main import main; sys.exit(main(['--help']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-u", "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141
    assert not done.stderr


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out[0].isdigit()


@pytest.mark.parametrize("command", sorted(FUNCTIONS))
def test_every_command_explains_itself(command, capsys):
    with nullcontext() if command in ("zoo", "generator", "completion") else pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"usage: paramgen {command}" in capsys.readouterr().out


def test_fit_then_sample_from_the_checkpoint_alone(config, tmp_path, capsys, tiny_zoo):
    path = config()
    assert main(["fit", "--config", path]) == 0
    checkpoint = tmp_path / "fit" / "last.ckpt"
    assert str(checkpoint) in capsys.readouterr().out
    for file in tiny_zoo.path.iterdir():
        file.unlink()
    Path(path).unlink()
    assert (
        main(["sample", "--ckpt_path", str(checkpoint), "--n", "4", "--out", str(tmp_path / "s"), "--seed", "3"]) == 0
    )
    listed = json.loads((tmp_path / "s" / "samples.json").read_text())
    assert (len(listed["networks"]), listed["seed"]) == (4, 3)
    assert listed["fit_seconds"] > 0


def test_sampling_from_a_state(config, tmp_path, capsys):
    small = {
        "recurrence": {"d_model": [32]},
        "head": {"kind": "mlp", "hidden": 16},
        "diffusion": {"scheduler": "DDIM", "num_inference_steps": 2},
    }
    data = yaml.safe_load(Path(config()).read_text())["data"]
    codec = {"class_path": "TokenCodec", "init_args": {"token_dim": 16}}
    path = config(model={"class_path": "RPG", "init_args": small}, data={**data, "codec": codec})
    assert main(["fit", "--config", path]) == 0
    command = ["sample", "--ckpt_path", str(tmp_path / "fit" / "last.ckpt"), "--n", "3", "--out"]
    for state, identities in (("1", {1}), ("random", {0, 1, 2, 3, 4, 5, 6, 7}), ("mixture", {None})):
        assert main([*command, str(tmp_path / state), "--state", state]) == 0
        listed = json.loads((tmp_path / state / "samples.json").read_text())
        assert {network["identity"] for network in listed["networks"]} <= identities
    capsys.readouterr()
    assert "state 900 is out of range" in refuses(capsys, *command, tmp_path / "s", "--state", "900")
    assert "state" in refuses(capsys, *command, tmp_path / "s", "--state", "any")


def test_one_line_says_which_scan_a_fit_runs_on(config, tmp_path, capsys):
    from paramgen.nn.scan import say_once

    say_once.cache_clear()
    data = yaml.safe_load(Path(config()).read_text())["data"]
    codec = {"class_path": "TokenCodec", "init_args": {"token_dim": 16}}
    model = {
        "class_path": "RPG",
        "init_args": {"recurrence": {"d_model": [32, 32]}, "head": {"kind": "mlp", "hidden": 16}},
    }
    assert main(["fit", "--config", config(model=model, data={**data, "codec": codec})]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "Mamba" in line] == ["Mamba2: torch"]


def test_states_and_trajectories_are_refused_by_generators_that_have_none(config, tmp_path, capsys):
    main(["fit", "--config", config()])
    line = refuses(capsys, "sample", "--ckpt_path", tmp_path / "fit" / "last.ckpt", "--state", "random")
    assert "'random' was requested, but this GaussianBackend has no states" in line
    line = refuses(capsys, "sample", "--ckpt_path", tmp_path / "fit" / "last.ckpt", "--trajectory", "true")
    assert "GaussianBackend has no trajectory to keep" in line
    line = refuses(capsys, "sample", "--ckpt_path", tmp_path / "fit" / "last.ckpt", "--scheduler", "DDIM")
    assert "DDIM was given, but this GaussianBackend has no solver to choose" in line


def test_samples_record_the_solver_that_was_used_and_the_call_that_drew_them(config, tmp_path):
    small = {
        "autoencoder": {"kind": "pca"},
        "denoiser": {"kind": "mlp", "width": 8, "depth": 1},
        "diffusion": {"scheduler": "DDIM", "num_inference_steps": 12},
    }
    assert main(["fit", "--config", config(model={"class_path": "PDiff", "init_args": small})]) == 0
    ckpt = str(tmp_path / "fit" / "last.ckpt")
    sample(ckpt, n=2, out=str(tmp_path / "own"))
    sample(ckpt, n=2, out=str(tmp_path / "typed"), scheduler="DPMSolverMultistep", num_inference_steps=7)
    own, typed = (json.loads((tmp_path / name / "samples.json").read_text()) for name in ("own", "typed"))
    assert (own["scheduler"], own["num_inference_steps"]) == ("DDIM", 12)
    assert (typed["scheduler"], typed["num_inference_steps"]) == ("DPMSolverMultistep", 7)
    assert own["command"] == f"paramgen sample --ckpt_path {ckpt} --n 2 --out {tmp_path / 'own'}"
    assert typed["command"].endswith("--scheduler DPMSolverMultistep --num_inference_steps 7")


def test_a_trajectory_is_written_and_ends_at_the_networks(config, tiny_zoo, tmp_path):
    small = {
        "autoencoder": {"kind": "pca"},
        "denoiser": {"kind": "mlp", "width": 8, "depth": 1},
        "diffusion": {"scheduler": "DDIM", "num_inference_steps": 12},
    }
    assert main(["fit", "--config", config(model={"class_path": "PDiff", "init_args": small})]) == 0
    command = ["sample", "--ckpt_path", str(tmp_path / "fit" / "last.ckpt"), "--n", "8", "--out"]
    assert main([*command, str(tmp_path / "watched"), "--trajectory", "true"]) == 0
    assert main([*command, str(tmp_path / "plain")]) == 0
    way = load_file(tmp_path / "watched" / "trajectory.safetensors")["trajectory"]  # (S, m, P)
    assert way.shape[:2] == (10, 6)
    assert not (tmp_path / "plain" / "trajectory.safetensors").exists()
    for i in range(8):
        watched, plain = (load_file(tmp_path / f / f"network_{i:04d}.safetensors") for f in ("watched", "plain"))
        assert all(torch.equal(watched[name], plain[name]) for name in plain)
        if i < 6:
            assert torch.allclose(way[-1, i], tiny_zoo.spec.flatten(watched), atol=1e-5)
            assert not torch.allclose(way[0, i], way[-1, i], atol=1e-2)


def test_fit_resumes_from_its_checkpoint(config, tmp_path):
    path = config()
    assert main(["fit", "--config", path]) == 0
    assert (
        main(["fit", "--config", path, "--trainer.max_steps", "30", "--ckpt_path", str(tmp_path / "fit" / "last.ckpt")])
        == 0
    )
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 30


def test_an_interrupted_fit_is_kept_and_goes_on_from_last(config, tmp_path, monkeypatch, capsys):
    path, here = config(checkpoint={}), str(tmp_path / "here")
    calls, loss = count(), gaussian_backend.GaussianBackend.loss

    def stopped(self, batch):
        if next(calls) == 7:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(gaussian_backend.GaussianBackend, "loss", stopped)
    line = ["fit", "--config", path, "--trainer.default_root_dir", here]
    assert main(line) == 130
    last = tmp_path / "here" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 7
    assert main([*line, "--ckpt_path", "last"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 20
    capsys.readouterr()
    assert "no last.ckpt under" in refuses(capsys, *line[:3], "--ckpt_path", "last", *line[3:4], tmp_path / "elsewhere")


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_take_the_checkpoint(config, tmp_path, verb):
    path = config()
    assert main(["fit", "--config", path]) == 0
    assert main([verb, "--config", path, "--ckpt_path", str(tmp_path / "fit" / "last.ckpt")]) == 0


def test_checkpoint_that_disagrees_with_the_config_is_refused(config, tmp_path, capsys):
    path = config()
    main(["fit", "--config", path])
    line = refuses(capsys, "fit", "--config", path, "--model.lr", "0.5", "--ckpt_path", tmp_path / "fit" / "last.ckpt")
    assert "model.lr is 0.5 here and 0.05 in the checkpoint" in line


def test_checkpoint_of_another_backend_is_refused(config, tmp_path, capsys):
    main(["fit", "--config", config()])
    other = config(model={"class_path": "PDiff", "init_args": {"autoencoder": {"kind": "none"}}})
    line = refuses(capsys, "validate", "--config", other, "--ckpt_path", tmp_path / "fit" / "last.ckpt")
    assert "PDiff" in line
    assert "GaussianBackend" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fitt"], "Unknown command 'fitt'. Did you mean 'fit'"),
        (["fit", "--config", "pdif_digits_mlp"], "Did you mean 'pdiff_digits_mlp'"),
        (["fit", "--model", "PDif"], "unknown ParameterGenerator 'PDif'. Did you mean 'PDiff'"),
        (["zoo", "inspect"], "Unknown command 'zoo inspect'"),
        (["zoo", "info", "--zoo", "nowhere"], "Unknown zoo 'nowhere'"),
        (["sample", "--ckpt_path", "nowhere.ckpt"], "checkpoint not found: 'nowhere.ckpt'"),
        (["sample", "--ckpt_path", "x.ckpt", "--n", "0"], "n is 0"),
        (["sample", "--ckpt_path", "x.ckpt", "--n", "many"], "n: Expected an int. Got value: many"),
        (["sample", "--ckpt_path", "x.ckpt", "--temperature", "-1"], "temperature is -1.0"),
        (["sample", "--ckpt_path", "x.ckpt", "--num_inference_steps", "0"], "num_inference_steps is 0"),
        (["collect", "--config", "digits_mlp_trajectry"], "Did you mean 'digits_mlp_trajectory'"),
        (["collect", "--config", "pdiff_digits_mlp"], "is for `paramgen fit`"),
        (["fit", "--config", "pdiff_digits_mlp", "--config", "trainer/ddpp"], "Did you mean 'trainer/ddp'"),
        ([*COLLECT, "--optim.lr", "-1"], "lr is -1.0, expected more than 0"),
        ([*COLLECT, "--epochs", "ten"], "epochs: Expected an int. Got value: ten"),
        ([*COLLECT, "--seed", "-5"], "seed is -5, expected an integer from 0 to 2^63 - 1"),
        (["sample", "--ckpt_path", "x.ckpt", "--seed", "9" * 23], "expected an integer from 0 to 2^63 - 1"),
        (["sample", "--ckpt_path", "x.ckpt", "--seen_tasks", "-1"], "seen_tasks is -1"),
        (["sample", "--ckpt_path", "x.ckpt", "--out", ""], "--out is empty, expected a file or a folder"),
        (["evaluate", "--zoo", "digits_mlp_trajectory", "--samples", ""], "--samples is empty"),
        (["merge", "--zoo", "digits_mlp_trajectory", "--method", "soup", "--device", "x"], "device 'x' cannot be used"),
        (["zoo", "quantise", "--zoo", "digits_mlp_trajectory", "--out", "q", "--device", "x"], "device 'x' cannot be"),
        (
            ["zoo", "prune", "--zoo", "digits_mlp_trajectory", "--out", "q", "--device", "x"],
            "device 'x' cannot be used",
        ),
        (["zoo", "align", "--zoo", "digits_mlp_trajectory", "--out", "q", "--rounds", "-1"], "rounds is -1"),
        (["compare", "--zoos", "{a: {path: digits_mlp_trajectory}}", "--seeds", "[]"], "at least one zoo and one seed"),
        (["compare", "--zoos", "{a: {path: digits_mlp_trajectory}}", "--seeds", "[1, 1]"], "expected each seed once"),
        (["compare", "--zoos", "{../a: {path: digits_mlp_trajectory}}"], "zoo '../a' cannot be the name of a folder"),
        (["compare", "--zoos", '{"a:b": {path: digits_mlp_trajectory}}'], "zoo 'a:b' cannot be the name of a folder"),
        (["compare", "--zoos", "{a: {path: digits_mlp_trajectory}}", "--per_task", "0"], "per_task is 0"),
        (["compare", "--zoos", "{a: {pth: x}}"], "zoos: ZooSource has no argument 'pth'. Did you mean 'path'?"),
        (["collect", "--task", "", "--out", "z"], "task: unknown Task ''. Available: ClassificationTask"),
        (["collect", "--config", "digits_relabel", "--out", "z"], "'digits_relabel' is for `paramgen collect_tasks`"),
        (["collect", "--config", __file__, "--out", "z"], "test_cli.py' is not valid YAML"),
        (["fit", "--config", "word\n"], "is 'word', expected settings: NAME: VALUE"),
        ([*COLLECT, "--mode", "sideways"], "mode: Expected one of 'trajectory', 'seeds'. Got value: sideways"),
        ([*COLLECT, "--parameters", ""], "parameters: Expected a list. Got value: ''"),
        ([*COLLECT, "--optim.lrr", "1"], "optim: OptimSettings has no argument 'lrr'. Did you mean 'lr'?"),
        (
            ["collect_tasks", "--config", "digits_relabel", "--out", "z", "--family.seen", "-3"],
            "seen is -3, expected 0",
        ),
        (
            [
                "collect_tasks",
                "--config",
                "digits_relabel",
                "--out",
                "z",
                "--start",
                "converged",
                "--start_steps",
                "-2",
            ],
            "start_steps is -2, expected 0 or more",
        ),
        ([*COLLECT, "--device", "gpux"], "device 'gpux' cannot be used"),
        ([*COLLECT, "--out", __file__], "is a file; choose a folder"),
        (["validate", "--config", "pdiff_digits_mlp"], "validate needs a fitted generator: --ckpt_path"),
        (
            ["fit", "--config", "pdiff_digits_mlp", "--ckpt_path", "nowhere.ckpt"],
            "checkpoint not found: 'nowhere.ckpt'",
        ),
        (["fit", "--config", "pdiff_digits_mlp", "--ckpt_path", __file__], "not written by torch.save"),
        (["zoo", "info", "--zoo", "th\udcffeir"], r"'th\udcffeir' is not Unicode text, so no file can record it"),
        (["configs", "--show", "pdiff_digts"], "Did you mean 'pdiff_digits'"),
        (["configs", "--folder", "zo"], "Unknown config folder 'zo'. Did you mean 'zoo'"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, tmp_path, monkeypatch, capsys):
    write_zoo(tmp_path / "digits_mlp_trajectory")
    monkeypatch.setenv("PARAMGEN_ZOO", str(tmp_path))
    assert expected in refuses(capsys, *arguments)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"zoo": "nowhere"}}, "Unknown zoo 'nowhere'"),
        ({"model": {"class_path": "GaussianBackend", "init_args": {"lrr": 1}}}, "lrr"),
        (
            {"model": {"class_path": "GaussianBackend", "init_args": {"lr": "fast"}}},
            "lr: Expected a float. Got value: fast",
        ),
        ({"trainer": {"max_steps": "many"}}, "max_steps"),
        ({"trainer": {"accumulate_grad_batches": 0}}, "trainer.accumulate_grad_batches is 0, expected 1 or more"),
        ({"trainer": {"check_val_every_n_epoch": 0}}, "trainer.check_val_every_n_epoch is 0, expected 1 or more"),
        ({"trainer": {"precision": "bf16-true"}}, "trainer.precision is bf16-true, but generators keep their weights"),
        ({"trainer": {"val_check_interval": 0}}, "trainer.val_check_interval is 0, expected 1 or more"),
        ({"checkpoint": {"save_top_k": -7}}, "Invalid value for save_top_k=-7. Must be >= -1"),
        ({"checkpoint": {"dirpath": ""}}, "checkpoint.dirpath is empty, expected a folder"),
        ({"seed_everything": -1}, "seed_everything is -1, expected an integer from 0 to 2^32 - 1"),
        ({"data": {"zoo": "zoo", "max_networks": -1}}, "data.max_networks is -1, expected 1 or more"),
        (
            {"model": {"class_path": "PDiff", "init_args": {"optimizer": {"lrr": 1}}}},
            "model: OptimizerSettings has no argument 'lrr'. Did you mean 'lr'?",
        ),
        ({"trainer": {"precision": "bf17"}}, "'bf16-mixed'"),
        ({"trainer": {"callbacks": [{"class_path": "paramgen.generators.optim.EMAA"}]}}, "has no attribute 'EMAA'"),
        ({"trainer": {"strategy": "ddpp"}}, "trainer: You selected an invalid strategy name: `strategy='ddpp'`"),
        ({"trainer": {"accelerator": "cpu", "devices": "many"}}, "trainer: `devices` selected with"),
        (
            {"model": {"class_path": "PDiff", "init_args": {"diffusion": {"scheduler": "DDIMM"}}}},
            "Unknown scheduler 'DDIMM'. Did you mean 'DDIM'",
        ),
        (
            {"model": {"class_path": "PDiff", "init_args": {"diffusion": {"num_train_timesteps": -3}}}},
            "num_train_timesteps is -3",
        ),
        (
            {"model": {"class_path": "RPG", "init_args": {"recurrence": {"d_model": [48, 48]}}}},
            "d_model 48: the inner width 96 must be",
        ),
        ({"data": {"zoo": "zoo", "batchsize": 3}}, "batchsize"),
        ({"data": {"zoo": "zoo", "codec": "TokenCodek"}}, "unknown ParamCodec 'TokenCodek'. Did you mean 'TokenCodec'"),
    ],
)
def test_mistakes_in_a_yaml_are_one_line(config, changes, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PARAMGEN_ZOO", str(tmp_path))
    assert expected in refuses(capsys, "fit", "--config", config(**changes))


def test_what_a_class_refuses_is_one_line_where_its_argument_may_be_left_out(config, tiny_zoo, capsys):
    codec = {"class_path": "TokenCodec", "init_args": {"token_dim": 0}}
    line = refuses(capsys, "fit", "--config", config(data={"zoo": str(tiny_zoo.path), "codec": codec}))
    assert line == "paramgen: token_dim is 0, expected 1 or more"


def test_a_file_that_is_no_text_is_no_config(tmp_path, capsys):
    (tmp_path / "weights.ckpt").write_bytes(b"\x80\x81")
    assert "is not valid YAML" in refuses(capsys, "fit", "--config", tmp_path / "weights.ckpt")


def test_samples_are_refused_before_they_are_drawn(config, tmp_path, capsys):
    main(["fit", "--config", config()])
    command = ["sample", "--ckpt_path", tmp_path / "fit" / "last.ckpt", "--n", "2", "--out"]
    assert "without conditions" in refuses(capsys, *command, tmp_path / "s", "--condition", "[1, 2]")
    assert "is a file" in refuses(capsys, *command, tmp_path / "config.yaml")
    write_zoo(tmp_path / "z")
    assert "z holds a zoo; choose another folder" in refuses(capsys, *command, tmp_path / "z", "--overwrite", "true")


def test_broken_yaml_is_one_line(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("trainer: {max_steps: 20\nmodel: [")
    assert "bad.yaml' is not valid YAML: while parsing" in refuses(capsys, "fit", "--config", tmp_path / "bad.yaml")


def test_verify_names_the_damaged_file(tiny_zoo, capsys):
    assert main(["zoo", "verify", "--zoo", str(tiny_zoo.path)]) == 0
    path = tiny_zoo.path / tiny_zoo.entries[2].file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert path.name in refuses(capsys, "zoo", "verify", "--zoo", tiny_zoo.path)


def test_info_shows_what_a_zoo_holds(tiny_zoo, capsys):
    assert main(["zoo", "info", "--zoo", str(tiny_zoo.path)]) == 0
    out = capsys.readouterr().out
    assert "linear.weight" in out
    assert "3 train (1 run)" in out


def test_configs_are_listed_with_what_they_are(capsys):
    assert main(["configs"]) == 0
    out = capsys.readouterr().out
    assert all(
        name in out
        for name in ("pdiff_digits_mlp", "digits_mlp_seeds20", "rpg_table15", "paramgen compare", "trainer/fsdp")
    )
    for name, key in (("pdiff_digits_mlp", "model:"), ("digits_mlp_seeds20", "task:"), ("rpg_table15", "zoos:")):
        assert main(["configs", "--show", name]) == 0
        assert key in capsys.readouterr().out


def test_doctor_finds_this_installation_sound(capsys):
    assert main(["doctor"]) == 0
    assert "torch and torchvision match: yes" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["bare.pt", "lightning.ckpt", "weights.safetensors"])
def test_import_reads_what_others_wrote(tmp_path, form, capsys):
    task = digits_task()
    folder = tmp_path / "theirs"
    folder.mkdir()
    for k in range(3):
        state = vary(task.build(), k)
        name = folder / f"{k}_{form}"
        if form == "lightning.ckpt":
            torch.save({"state_dict": {f"model.{n}": t for n, t in state.items()}, "epoch": 3}, name)
        elif form == "bare.pt":
            torch.save(state, name)
        else:
            write_tensors(name, state)
    prefix = ["--prefix", "model."] if form == "lightning.ckpt" else []
    assert main([*import_line(folder, tmp_path), *prefix]) == 0
    assert "3 networks of 5,018 generated parameters" in capsys.readouterr().out
    assert main(["zoo", "verify", "--zoo", str(tmp_path / "imported")]) == 0


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda s: s.pop(next(iter(s))), "1_net.pt: no tensor"),
        (lambda s: s.update({next(iter(s)): torch.zeros(2, 2)}), "1_net.pt: "),
        (lambda s: s.update({"extra": torch.zeros(2)}), "'extra' is not in the network"),
        (lambda s: s.update({next(iter(s)): next(iter(s.values())) * torch.inf}), "NaN or infinite"),
        (lambda s: s.update({"run": subprocess.run}), "loading it would run its code"),
    ],
)
def test_import_refuses_by_name_what_does_not_fit(tmp_path, damage, expected, capsys):
    task = digits_task()
    folder = tmp_path / "theirs"
    folder.mkdir()
    for k in range(2):
        state = vary(task.build(), k)
        if k == 1:
            damage(state)
        torch.save(state, folder / f"{k}_net.pt")
    assert expected in refuses(capsys, *import_line(folder, tmp_path))


def test_an_import_stopped_by_a_bad_file_goes_on_when_it_is_mended(tmp_path, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    states = [vary(digits_task().build(), k) for k in range(3)]
    for k, state in enumerate(states):
        torch.save({n: t * torch.nan if k == 1 else t for n, t in state.items()}, folder / f"{k}_net.pt")
    assert "1_net.pt: " in refuses(capsys, *import_line(folder, tmp_path))
    torch.save(states[1], folder / "1_net.pt")
    assert main(import_line(folder, tmp_path)) == 0
    assert "3 networks of 5,018" in capsys.readouterr().out


def digits_task():
    return load_task(DIGITS)


def import_line(folder, tmp_path):
    task = ["--task", "ClassificationTask", "--task.dataset", "digits", "--task.network", "mlp"]
    return ["zoo", "import", "--source", str(folder), "--out", str(tmp_path / "imported"), *task]


def test_zoo_of_one_network_is_refused(tmp_path, config, capsys):
    zoo = write_zoo(tmp_path / "one", networks=1, runs=1)
    assert "gives 1 training network" in refuses(capsys, "fit", "--config", config(data={"zoo": str(zoo.path)}))
