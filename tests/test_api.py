"""What the commands do, from Python."""

import subprocess
import sys

import pytest

from paramgen.api import ClassificationTask, Zoo, collect, evaluate, fit, load_generator, read_samples, sample
from paramgen.collect.train import OptimSettings
from paramgen.errors import ParamgenError


def test_a_zoo_is_collected_learnt_and_its_generator_sampled_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = ClassificationTask(network_args={"hidden": [12]})
    zoo = collect(task, "zoo", runs=3, checkpoints=8, epochs=2, heldout_runs=1, finetune=OptimSettings(lr=1e-3))
    assert isinstance(zoo, Zoo)
    assert len(zoo) == 24
    settings = {
        "data.zoo": "zoo",
        "trainer.max_steps": 20,
        "trainer.logger": False,
        "quality.sample_every": 0,
        "checkpoint.dirpath": "fit",
    }
    generator = fit("pdiff_digits_mlp", settings)
    assert generator.fit_command.startswith("paramgen fit --config pdiff_digits_mlp --data.zoo zoo")
    task.build().load_state_dict(generator.sample(2)[0], strict=True)
    assert load_generator("fit/last.ckpt").fit_config == generator.fit_config
    folder = sample("fit/last.ckpt", n=5, out="samples")
    assert len(read_samples(folder, zoo).weights) == 5
    results = evaluate("zoo", str(folder), out="report", baselines="soup-2", n=5)
    assert [row.name for row in results.rows] == ["zoo", "held-out runs", "samples", "soup-2"]
    with pytest.raises(ParamgenError, match="trainer"):
        fit("pdiff_digits_mlp", {**settings, "trainer.max_stepss": 3})


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "paramgen", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
