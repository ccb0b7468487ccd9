"""One writer for each folder; temporary files of processes that are gone."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from paramgen.cli.main import main as paramgen
from paramgen.collect.single import main as collect_zoo
from paramgen.core import locks
from paramgen.core.io import replacing, write_atomic
from paramgen.core.locks import LOCK, locked, remove_dead
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo
from paramgen.core.signals import StopRequested
from paramgen.errors import ParamgenError
from paramgen.generators.checkpoints import Checkpoints
from paramgen.tasks import FieldTask

HOLDING = """
import os, sys
from pathlib import Path
from paramgen.core.locks import locked, temporary_file
final = Path(sys.argv[1], "half.json")
with locked(final.parent), temporary_file(final) as file:
    file.write(b"{")
    file.flush()
    print("ready", flush=True)
    sys.stdin.read()
    os.replace(file.name, final)
"""


@contextmanager
def other_process(folder):
    """Another process that holds `folder` and is half-way through writing ``half.json``."""
    command = [sys.executable, "-c", HOLDING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.stdin.close()


def temporaries(folder):
    return sorted(p.name for p in folder.glob(".half.json.*"))


def test_a_folder_that_another_process_writes_is_refused_and_the_process_is_named(tmp_path):
    with other_process(tmp_path / "x") as process:
        expected = rf"x is being written by process {process.pid} \(paramgen .*\) since 20..-..-.. ..:..: wait"
        with pytest.raises(ParamgenError, match=expected), locked(tmp_path / "x"):
            pass
        with pytest.raises(ParamgenError, match="x is being written by"):  # from Python too
            write_samples(tmp_path / "x", [{"a": torch.zeros(1)}], SampleInfo())
        task = FieldTask(hidden=4, octaves=1, resolution=4)
        with pytest.raises(ParamgenError, match="x is being written by"):
            collect_zoo(task, str(tmp_path / "x"), checkpoints=2, epochs=0)
    with locked(tmp_path / "x"):
        pass


@pytest.mark.parametrize(
    "command",
    [
        ["collect", "--task", "ClassificationTask"],
        ["zoo", "import", "--source", ".", "--task", "ClassificationTask"],
        ["zoo", "align", "--zoo", "none"],
        ["sample", "--ckpt_path", "none"],
        ["evaluate", "--zoo", "digits_small"],
        ["compare", "--config", "digits"],
        ["adapters", "--samples", "none", "--zoo", "digits_small"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_command_that_writes_a_folder_is_refused_beside_another(tmp_path, command, capsys):
    with other_process(tmp_path) as process:
        assert paramgen([*command, "--out", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert f"{tmp_path} is being written by process {process.pid} (" in message
        assert message.count("\n") == 1


def test_a_fit_is_refused_where_another_process_writes_its_checkpoints(tmp_path, tiny_zoo, capsys):
    quiet = [
        "--trainer.max_steps=5",
        "--trainer.logger=false",
        "--quality.sample_every=0",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    fit = ["fit", "--config", "pdiff_digits_mlp", f"--data.zoo={tiny_zoo.path}", *quiet]
    folder = tmp_path / "fit"
    with other_process(folder) as process:
        assert paramgen([*fit, f"--checkpoint.dirpath={folder}"]) == 2
        assert f"fit is being written by process {process.pid} (" in capsys.readouterr().err
    assert paramgen([*fit, f"--checkpoint.dirpath={folder}"]) == 0
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_other_processes_of_a_refused_fit_end_in_silence(tmp_path):
    checkpoints = Checkpoints(tmp_path / "fit")
    strategy = SimpleNamespace(broadcast=lambda mine: mine or "fit is being written by process 1", checkpoint_io=None)
    trainer = SimpleNamespace(is_global_zero=False, strategy=strategy, fast_dev_run=False, loggers=[])
    with pytest.raises(SystemExit) as ended:
        checkpoints.setup(trainer, None, "fit")
    assert ended.value.code == 0


@pytest.mark.slow
def test_a_refused_fit_on_two_processes_says_so_once(tmp_path):
    folder, script = tmp_path / "fit", tmp_path / "main.py"
    script.write_text("import sys\nfrom paramgen.cli.main import main\nsys.exit(main())\n")
    fit = ["fit", "--config", "pdiff_digits_mlp", "--data.zoo=digits_small", f"--checkpoint.dirpath={folder}"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.logger=false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with other_process(folder):
        ended = subprocess.run([sys.executable, script, *fit, *two], capture_output=True, env=environment, text=True)
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if line.startswith("paramgen: ")]
    assert len(said) == 1
    assert "fit is being written by process" in said[0]


def test_a_killed_process_leaves_no_lock_and_its_temporary_file_goes_at_the_next_start(tmp_path):
    with other_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists()
    assert len(temporaries(tmp_path)) == 1
    with locked(tmp_path):
        assert temporaries(tmp_path) == []
    assert [*tmp_path.iterdir()] == []


def test_the_temporary_file_of_a_living_process_stays(tmp_path):
    with other_process(tmp_path):
        remove_dead(tmp_path)
        assert len(temporaries(tmp_path)) == 1
    assert (tmp_path / "half.json").read_bytes() == b"{"


def test_one_process_may_lock_a_folder_again_and_folders_below(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "a" / "b"), locked(tmp_path / "a" / ".." / "a"):
        write_atomic(tmp_path / "a" / "b" / "file", b"x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "file"]


def test_folders_that_were_made_for_a_refused_command_are_removed(tmp_path, capsys):
    assert paramgen(["sample", "--ckpt_path", "none", "--out", str(tmp_path / "a" / "b")]) == 2
    assert [*tmp_path.iterdir()] == []


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / LOCK).symlink_to(tmp_path / "precious")
    with (
        pytest.raises(ParamgenError, match=r"cannot write .*x: Too many levels of symbolic links"),
        locked(tmp_path / "x"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_forked_process_does_not_prolong_the_lock(tmp_path):
    """Workers of a data loader may live on for seconds when their parent is killed."""
    reading, writing = os.pipe()
    with locked(tmp_path):
        if not (child := os.fork()):
            os.close(writing)
            os.read(reading, 1)  # until the parent closes the pipe
            os._exit(0)
    try:
        again = f"from paramgen.core.locks import locked\nwith locked({str(tmp_path)!r}): pass"
        assert subprocess.run([sys.executable, "-c", again], check=False).returncode == 0
    finally:
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)


def test_a_file_system_without_locks_is_said_once_and_nothing_is_deleted_there(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "fcntl", SimpleNamespace(flock=flock, LOCK_EX=2, LOCK_NB=4))
    monkeypatch.setattr(locks, "_warned", [])
    (tmp_path / f".file.abc{locks.TEMPORARY}").touch()
    for _ in range(2):
        with locked(tmp_path):
            write_atomic(tmp_path / "file", b"x")
    assert caplog.text.count("has no locks (No locks available)") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"file", f".file.abc{locks.TEMPORARY}"}


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path / "file", b"old")
    with suppress(KeyError), replacing(tmp_path / "file") as file:
        file.write(b"new")
        raise KeyError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_temporary_file(tmp_path):
    with suppress(ParamgenError), replacing(tmp_path / "file") as file:
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        file.write(b"x")  # buffered: it fails when it is written, and again when the file is closed
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("at", ["open", "_flock", "_is"])
def test_a_request_to_stop_at_any_moment_leaves_no_temporary_file(tmp_path, monkeypatch, at):
    where = os if at == "open" else locks
    real = getattr(where, at)

    def stopped(*args, **options):
        real(*args, **options)
        raise StopRequested(signal.SIGTERM)

    monkeypatch.setattr(where, at, stopped)
    with pytest.raises(StopRequested):
        write_atomic(tmp_path / "file", b"x")
    assert [*tmp_path.iterdir()] == []


def test_a_renamed_file_is_synced_with_its_folder(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    write_atomic(tmp_path / "file", b"x")
    assert synced[0].startswith(str(tmp_path / ".file."))
    assert synced[1] == str(tmp_path)


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a folder whose file system refuses new ones with ENOENT"
)
def test_a_folder_that_the_system_says_does_not_exist_is_refused_rather_than_tried_for_ever():
    with pytest.raises(ParamgenError, match="cannot write /proc/none/x"), locked("/proc/none/x"):
        pass
