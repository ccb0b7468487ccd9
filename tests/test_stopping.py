"""A command that is asked to stop stops: what it has is kept, the line says so, the exit code is the signal's."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

import gaussian_backend
from conftest import write_fit
from measured import make_zoo
from paramgen.cli.commands import doctor
from paramgen.cli.lightning import is_lost_process
from paramgen.cli.main import main
from paramgen.collect import collector
from paramgen.core import signals
from paramgen.core.signals import StopRequested
from paramgen.errors import ParamgenError
from paramgen.generators.checkpoints import CompleteCheckpoints


@pytest.fixture
def fit(tmp_path):
    """The command line of a fit, a second long."""
    return write_fit(tmp_path, max_steps=20)


class Stopping:
    """A request to stop, in the middle of what is saved."""

    def __reduce__(self):
        signals.raise_request(signal.SIGTERM)


def during(monkeypatch, owner, name, step, act):
    """Act within the call number `step` of a method."""
    method, calls = getattr(owner, name), []

    def watched(*args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            act()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, watched)


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """Handle signals as in a terminal: a shell starts its background jobs, these tests among them, with Ctrl-C ignored."""
    every = (*signals.REQUESTS, signal.SIGINT)
    with signals.restored(every):
        for signum in every:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        yield


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_fit_ends_its_step_saves_and_says_where(name, fit, tmp_path, monkeypatch, capsys):
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    during(monkeypatch, gaussian_backend.GaussianBackend, "loss", 7, lambda: signal.raise_signal(signum))
    assert main(fit) == 128 + signum
    last = tmp_path / "fit" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 7
    error = capsys.readouterr().err
    assert f"saved step 7; to resume, run the same command with --ckpt_path {last}" in error
    assert f"paramgen: stopped by {name}; all files written so far are complete" in error
    assert signal.getsignal(signum) == before
    assert main([*fit, "--ckpt_path", str(last)]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 20


def test_a_fit_in_the_background_goes_on_at_ctrl_c(fit, tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    during(monkeypatch, gaussian_backend.GaussianBackend, "loss", 7, lambda: signal.raise_signal(signal.SIGINT))
    assert main(fit) == 0
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 20


def test_ctrl_c_works_after_a_fit_that_it_ended_before_the_first_step(fit, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    during(monkeypatch, gaussian_backend.GaussianBackend, "setup", 1, lambda: signal.raise_signal(signal.SIGINT))
    assert main(fit) == 130
    assert signal.getsignal(signal.SIGINT) == before


def test_a_fit_between_two_steps_stops_at_once(fit, tmp_path, monkeypatch):
    def stop():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the fit went on after the signal")

    during(monkeypatch, gaussian_backend.GaussianBackend, "on_train_epoch_end", 1, stop)
    assert main(fit) == 143
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 10


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_stopped_collect_goes_on_with_the_same_command(name, tmp_path, monkeypatch, capsys):
    command = ["collect", "--config", "digits_mlp_trajectory", "--out", str(tmp_path / "zoo"), "--checkpoints", "6"]
    command += ["--epochs", "1", "--task.network_args", "{hidden: [4]}"]
    monkeypatch.setattr(collector, "WAIT", 0)  # every network is written at once
    during(monkeypatch, collector.ZooWriter, "add", 4, lambda: signal.raise_signal(getattr(signal, name)))
    assert main(command) == 128 + getattr(signal, name)
    assert f"paramgen: stopped by {name}" in capsys.readouterr().err
    assert not (tmp_path / "zoo" / "zoo.json").exists()
    assert main(command) == 0
    assert main(["zoo", "verify", "--zoo", str(tmp_path / "zoo")]) == 0


def test_a_stopped_evaluation_writes_nothing(tmp_path, monkeypatch):
    zoo = make_zoo(tmp_path / "zoo", runs=6, heldout=1, hidden=[8])
    during(monkeypatch, type(zoo), "matrix", 1, lambda: signal.raise_signal(signal.SIGTERM))
    assert main(["evaluate", "--zoo", str(zoo.path), "--n", "4", "--out", str(tmp_path / "out")]) == 143
    assert not [*tmp_path.glob("out/*.json")]


def test_a_request_that_native_code_turns_into_its_own_error_is_still_a_request(tmp_path, monkeypatch, capsys):
    def read(path):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)  # the handler runs here
        except StopRequested:
            raise ValueError("could not determine the shape of object type 'torch.storage.UntypedStorage'") from None

    make_zoo(tmp_path / "zoo")
    monkeypatch.setattr("paramgen.core.zoo.regular_file", read)
    assert main(["zoo", "verify", "--zoo", str(tmp_path / "zoo")]) == 143
    assert capsys.readouterr().err == "paramgen: stopped by SIGTERM; all files written so far are complete\n"


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_other_processes_of_a_stopped_fit_end_well(variable, fit, monkeypatch, capsys):
    monkeypatch.setattr("paramgen.cli.main.run", lambda _: signals.raise_request(signal.SIGTERM))
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):  # Lightning leaves the first in the process
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    assert main(fit) == 0
    assert not capsys.readouterr().err


def test_signals_are_handled_in_the_main_thread_alone():
    before, found = signal.getsignal(signal.SIGTERM), []

    def enter():
        with signals.raised():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_forked_process_dies_of_the_signal():
    with signals.raised():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with signals.raised():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_checkpoint_replaces_the_old_one_from_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "does not exist"))  # nothing may be written there first
    path = tmp_path / "fits" / "last.ckpt"
    writer = CompleteCheckpoints()
    for step in (1, 2):
        writer.save_checkpoint({"step": step, "weights": torch.ones(3)}, path)
        assert torch.load(path, weights_only=True)["step"] == step
    assert [*path.parent.iterdir()] == [path]


def test_a_fit_keeps_one_copy_of_its_checkpoint(fit, tmp_path):
    assert main(fit) == 0
    last, newest = (tmp_path / "fit" / name for name in ("last.ckpt", "epoch=1-step=20.ckpt"))
    assert last.samefile(newest)
    assert sorted(tmp_path.glob("fit/*.ckpt")) == [newest, last]


@pytest.mark.parametrize("hard", [True, False])
def test_last_is_whole_however_far_a_save_has_come(hard, tmp_path, monkeypatch):
    if not hard:  # as on file systems that have symbolic links alone
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    writer, last = CompleteCheckpoints(), tmp_path / "last.ckpt"
    writer.links = True

    def state(step):
        return {"global_step": step, "weights": torch.full((3,), step)}

    def check(step):
        assert torch.load(last, weights_only=True)["global_step"] == step

    for name in ("step=1.ckpt", "last.ckpt"):
        writer.save_checkpoint(state(1), tmp_path / name)
    check(1)
    with pytest.raises(StopRequested):
        writer.save_checkpoint(state(2) | {"stop": Stopping()}, tmp_path / "step=2.ckpt")
    check(1)
    writer.save_checkpoint(state(2), tmp_path / "step=2.ckpt")
    check(1)
    writer.remove_checkpoint(tmp_path / "step=1.ckpt")  # Lightning does so before it saves the last one
    check(1 if hard else 2)
    writer.save_checkpoint(state(2), last)
    check(2)
    assert last.samefile(tmp_path / "step=2.ckpt")
    writer.save_checkpoint(state(3), last)  # where a fit is stopped
    check(3)
    assert torch.load(tmp_path / "step=2.ckpt", weights_only=True)["global_step"] == 2
    assert sorted(tmp_path.iterdir()) == [last, tmp_path / "step=2.ckpt"]


@pytest.fixture
def small_files():
    """Until the end of the test no file grows beyond 300 kB: what a full disk does to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, small_files):
    writer, path = CompleteCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"weights": torch.ones(3)}, path)
    with pytest.raises(ParamgenError, match=rf"cannot write {path}: File too large.*; the last checkpoint is {path}$"):
        writer.save_checkpoint({"weights": torch.ones(50_000), "more": torch.ones(50_000)}, path)
    assert torch.load(path, weights_only=True)["weights"].tolist() == [1, 1, 1]
    assert [*tmp_path.iterdir()] == [path]


def test_a_signal_within_a_checkpoint_is_no_error_of_it(tmp_path):
    writer, path = CompleteCheckpoints(), tmp_path / "last.ckpt"
    with pytest.raises(StopRequested):
        writer.save_checkpoint({"weights": torch.ones(3), "stop": Stopping()}, path)
    assert not [*tmp_path.iterdir()]


def test_a_fit_on_a_full_disk_ends_with_one_line(fit, small_files, capsys):
    big = ["--model", "PDiff", "--model.autoencoder.kind", "none", "--model.denoiser", "{kind: mlp, width: 256}"]
    assert main([*fit, *big]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paramgen: ")]
    assert len(lines) == 1
    assert "File too large; files written before are complete" in lines[0]


@pytest.mark.parametrize("argument", ["--checkpoint.dirpath", "--trainer.default_root_dir"])
def test_a_folder_that_a_fit_cannot_write_is_one_line(argument, fit, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    extra = ["--trainer.logger", "true"] if argument == "--trainer.default_root_dir" else []
    assert main([*fit, *extra, argument, str(tmp_path / "file" / "below")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paramgen: ")]
    assert len(lines) == 1
    assert f"cannot write {tmp_path / 'file'}" in lines[0]


def test_last_in_a_folder_of_its_own_is_checked_like_any_path(fit, tmp_path, capsys):
    assert main([*fit, "--ckpt_path", "last"]) == 2
    assert f"no last.ckpt under {tmp_path / 'fit'}" in capsys.readouterr().err
    assert main(fit) == 0
    assert main([*fit, "--ckpt_path", "last", "--model.lr", "0.5"]) == 2
    assert "model.lr is 0.5 here and 0.05 in the checkpoint" in capsys.readouterr().err
    assert main([*fit, "--ckpt_path", "last", "--trainer.max_steps", "30"]) == 0
    assert torch.load(tmp_path / "fit" / "last.ckpt", weights_only=True)["global_step"] == 30


def test_a_finished_fit_in_a_moved_folder_names_the_checkpoint_that_is_there(fit, tmp_path, capsys):
    assert main(fit) == 0
    moved = (tmp_path / "fit").rename(tmp_path / "moved")
    capsys.readouterr()
    assert main([*fit, "--checkpoint.dirpath", str(moved), "--ckpt_path", "last"]) == 0
    assert f"checkpoint: {moved / 'last.ckpt'}\n" in capsys.readouterr().out


def test_doctor_fails_where_it_finds_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_distributed", lambda: "no: this torch has no gloo")
    assert main(["doctor"]) == 1
    assert "The installation is faulty: processes (gloo)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code", "said"),
    [
        (signal.SIGKILL, 2, "another process of this fit ended unexpectedly"),
        (signal.SIGTERM, 143, "stopped by SIGTERM; all files written so far are complete"),
    ],
)
def test_two_processes_end_when_one_of_them_is_signalled(signum, code, said, fit, tmp_path):
    script = tmp_path / "main.py"
    script.write_text("import sys, gaussian_backend\nfrom paramgen.cli.main import main\nsys.exit(main())\n")
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "1000000"]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    with (tmp_path / "said").open("w") as out:
        process = subprocess.Popen([sys.executable, script, *fit, *two], stderr=out, stdout=out, env=environment)
    end = time.monotonic() + 120
    while not (tmp_path / "fit" / "last.ckpt").exists() and time.monotonic() < end:
        time.sleep(0.1)
    (other,) = psutil.Process(process.pid).children()
    other.send_signal(signum)
    assert process.wait(120) == code
    psutil.wait_procs([other], timeout=30)
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("paramgen: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_the_loss_of_a_process_is_told_from_other_errors():
    assert is_lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer [::1]:5678"))
    assert is_lost_process(torch.distributed.DistBackendError("NCCL error"))
    assert not is_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_fit_says_what_it_fits_and_advertises_nothing(fit, capsys):
    assert main(fit) == 0
    said = "".join(capsys.readouterr())
    assert "fitting GaussianBackend with " in said
    assert "Tip" not in said
    assert "litlogger" not in said
    assert "FLOPs" not in said
