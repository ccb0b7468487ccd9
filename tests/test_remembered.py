"""Zoos that the user made here with classes that the user typed need no trust; all others do."""

import gc
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import write_own_module, write_zoo
from gaussian_backend import GaussianBackend
from paramgen.cli.main import main
from paramgen.core import remembered
from paramgen.core.locks import locked
from paramgen.core.trust import UntrustedError, foreign_classes, import_class, module_file
from paramgen.core.zoo import Zoo
from paramgen.tasks import task_of

FORBIDDEN = "which is not part of paramgen: running its code needs --trust true"
COLLECT = ["collect", "--epochs", "1", "--runs", "1", "--checkpoints", "4", "--finetune.lr", "0.01"]
EVALUATE = ["evaluate", "--baselines", "none", "--n", "2", "--train_images", "100", "--out", "report"]
OWN = """
from pathlib import Path

from torch import nn

from paramgen.tasks import ClassificationTask

Path("code-ran").touch()


class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class OwnTask(ClassificationTask):
    pass
"""


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """The state file of a user for whom nothing is remembered yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/paramgen/trusted.json"


@pytest.fixture
def own(tmp_path, monkeypatch, state) -> Iterator[str]:
    """A module of the user's in the working folder, which is not on Python's path."""
    name = write_own_module(tmp_path, monkeypatch, OWN)
    yield name
    forget_module(name)


def forget_module(name: str) -> None:
    """As in a new process, which has not imported it."""
    sys.modules.pop(name, None)
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path.cwd()]
    Path("code-ran").unlink(missing_ok=True)


def write_own(own: str) -> None:
    """A zoo that a process wrote which had imported the user's network."""
    import_class(f"{own}.Plain", nn.Module, "network")
    write_zoo(Path("zoo"), task={"class_path": "ClassificationTask", "init_args": {"network": f"{own}.Plain"}})
    forget_module(own)


def import_networks(own: str) -> None:
    """A zoo of files of the user's network, with the class typed on the command line."""
    Path("files").mkdir()
    for seed in range(4):
        torch.manual_seed(seed)
        torch.save({f"layer.{k}": v for k, v in nn.Linear(64, 10).state_dict().items()}, f"files/n{seed}.pt")
    task = ["--task", "ClassificationTask", "--task.network", f"{own}.Plain"]
    assert main(["zoo", "import", "--source", "files", "--out", "zoo", "--score", "false", *task]) == 0
    forget_module(own)


def refused(zoo: str) -> bool:
    """Whether the task of a zoo is refused, and nothing of it runs."""
    with pytest.raises(UntrustedError, match=FORBIDDEN):
        task_of(Zoo(zoo))
    return not Path("code-ran").exists()


def test_a_zoo_imported_with_a_typed_class_is_evaluated_without_trust(own):
    import_networks(own)
    assert main([*EVALUATE, "--zoo", "zoo"]) == 0
    assert json.loads(Path("report/results.json").read_text())["rows"][0]["name"] == "zoo"


@pytest.mark.parametrize("task", [["ClassificationTask", "--task.network", "{}.Plain"], ["{}.OwnTask"]])
def test_a_zoo_collected_with_a_typed_class_is_watched_in_a_fit_and_evaluated_and_aligned_without_trust(
    task, own, capsys
):
    assert main([*COLLECT, "--out", "zoo", "--task", *(word.format(own) for word in task)]) == 0
    forget_module(own)
    gc.collect()  # a task that is still known would need no import
    assert main([*EVALUATE, "--zoo", "zoo"]) == 0
    forget_module(own)
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    fit = ["fit", "--model", GaussianBackend.__name__, "--data.zoo", "zoo", "--trainer.max_steps", "3", *quiet]
    capsys.readouterr()
    assert main(fit) == 0
    assert "samples are not scored" not in capsys.readouterr().err
    forget_module(own)
    assert main(["zoo", "align", "--zoo", "zoo", "--out", "aligned"]) == 0
    forget_module(own)
    assert isinstance(task_of(Zoo("aligned")).build(), nn.Module)


def test_a_zoo_is_remembered_by_its_path_and_what_was_written(own, state):
    write_own(own)
    shutil.copytree("zoo", "copy")
    assert refused("copy")
    text = Path("zoo/zoo.json").read_text()
    Path("zoo/zoo.json").write_text(text.replace('"made": "by a test"', '"made": "by another"'))
    assert refused("zoo")
    Path("zoo/zoo.json").write_text(text)
    Path("link").symlink_to("zoo")
    assert Zoo("zoo").trusted
    assert Zoo("link").trusted
    Path("zoo").rename("moved")
    assert refused("moved")
    assert not Zoo("copy").trusted


def test_another_user_remembers_nothing_of_it(own, tmp_path, monkeypatch):
    write_own(own)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    assert refused("zoo")


def test_a_module_of_the_same_name_elsewhere_does_not_run_in_its_place(own, tmp_path, monkeypatch):
    write_own(own)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{own}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert refused(str(tmp_path / "zoo"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Zoo(tmp_path / "zoo").trusted  # from another folder, but the same file


def test_only_the_user_can_read_the_state_file(own, state):
    write_own(own)
    assert state.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in state.parent.iterdir()] == ["trusted.json"]


DAMAGE = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "not JSON": lambda text: "trust everything",
    "another format": lambda text: text.replace('"format": 1', '"format": 2'),
    "without digest": lambda text: text.replace('"sha256"', '"sha1"'),
    "of other types": lambda text: json.dumps({"format": 1, "zoos": [*json.loads(text)["zoos"]]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_file_is_ignored_and_replaced(damage, own, state, caplog):
    write_own(own)
    state.write_text(DAMAGE[damage](state.read_text()))
    remembered._say.cache_clear()
    with caplog.at_level(logging.DEBUG, "paramgen.core.remembered"):
        assert not Zoo("zoo").trusted
        assert refused("zoo")
    assert [record.levelname for record in caplog.records if record.name == "paramgen.core.remembered"] == ["DEBUG"]
    shutil.rmtree("zoo")
    write_own(own)
    assert Zoo("zoo").trusted


@pytest.mark.parametrize("home", ["file", "missing"])
def test_where_the_state_cannot_be_written_nothing_is_remembered_and_nothing_fails(
    home, own, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", {"file": str(tmp_path / "file"), "missing": "/proc/none"}[home])
    write_own(own)
    assert refused("zoo")


def test_a_state_file_that_others_can_write_is_ignored(own, state):
    write_own(own)
    state.chmod(0o666)
    assert refused("zoo")


def test_a_zoo_without_foreign_classes_is_not_recorded(tmp_path, state):
    write_zoo(tmp_path / "zoo", task={"class_path": "ClassificationTask", "init_args": {"network": "timm:resnet18.a1"}})
    assert not state.exists()
    assert not Zoo(tmp_path / "zoo").trusted


def test_a_class_that_never_ran_here_is_not_remembered(own, tmp_path, state):
    """A program that copies somebody's zoo network by network has typed no class."""
    write_zoo(tmp_path / "zoo", task={"class_path": f"{own}.OwnTask", "init_args": {}})
    assert not state.exists()
    with pytest.raises(UntrustedError, match=FORBIDDEN):
        task_of(Zoo(tmp_path / "zoo"))


def test_a_remembered_zoo_vouches_for_no_other_file(own):
    write_own(own)
    zoo = Zoo("zoo")
    assert zoo.trusted
    assert not zoo.trust  # what load_conditional and compare go by


def test_the_newest_zoos_are_kept(own, tmp_path, state, monkeypatch):
    monkeypatch.setattr(remembered, "KEPT", 2)
    for name in "abac":
        remembered.remember(tmp_path / name, "0", ["torch.nn.Linear"])
    assert [Path(path).name for path in json.loads(state.read_text())["zoos"]] == ["a", "c"]


def test_two_commands_that_end_at_the_same_time_are_both_remembered(tmp_path, state):
    with locked(state.parent):
        child = os.fork()
        if child == 0:
            try:
                remembered.remember(tmp_path / "a", "0", ["torch.nn.Linear"])
            finally:
                os._exit(0)
        remembered.remember(tmp_path / "b", "0", ["torch.nn.Linear"])
    os.waitpid(child, 0)
    assert {Path(path).name for path in json.loads(state.read_text())["zoos"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("config", "classes"),
    [
        ({"class_path": "paramgen.tasks.ClassificationTask", "init_args": {"network": "mlp"}}, set()),
        ({"class_path": "ClassificationTask", "init_args": {"network": "timm:resnet18.a1_in1k"}}, set()),
        ({"class_path": "ClassificationTask", "init_args": {"network": "a.Net", "root": "b.c"}}, {"a.Net"}),
        ({"class_path": "Member", "init_args": {"family": {"class_path": "x.y.Own", "init_args": {}}}}, {"x.y.Own"}),
        ({"class_path": "x.Own", "init_args": {"parts": [{"class_path": "z.Part"}]}}, {"x.Own", "z.Part"}),
    ],
)
def test_foreign_classes_are_found_wherever_a_configuration_names_them(config, classes):
    assert foreign_classes(config) == classes


def test_a_modules_file_is_found_without_importing_it(own, tmp_path):
    assert module_file(f"{own}.Plain") == os.path.realpath(tmp_path / f"{own}.py")
    assert module_file("torch.nn.Linear") == os.path.realpath(torch.__file__)
    assert module_file("nowhere.Net") is None
    assert own not in sys.modules
