"""From a recipe to generated networks and their report in few calls, for tests of whole lines."""

import json
from pathlib import Path
from typing import Any

import paramgen
from paramgen.cli.main import main
from paramgen.core.zoo import Zoo


def fitted_samples(config: str, learnt: Zoo, out: Path, **requested: Any) -> Path:
    """A folder of networks of a shipped generator config that was fitted for a few steps; `requested`: arguments of ``sample``."""
    fit = out.with_name(f"{out.name}_fit")
    quiet = {"trainer.logger": False, "trainer.enable_progress_bar": False, "quality.sample_every": 0}
    paramgen.fit(config, {"trainer.max_steps": 6, "checkpoint.dirpath": str(fit), **quiet}, zoo=learnt)
    return paramgen.sample(str(fit / "last.ckpt"), out=str(out), **requested)


def run(capsys, *lines):
    for line in lines:
        assert main(line) == 0, capsys.readouterr().err


QUIET = ["--trainer.logger", "false", "--quality.sample_every", "0", "--trainer.enable_progress_bar", "false"]


def collecting(recipe, *options):
    return ["collect", "--config", recipe, "--out", "zoo", *options]


def line_to_report(zoo, config, steps="6"):
    return (
        [
            "fit",
            "--config",
            config,
            "--data.zoo",
            zoo,
            "--trainer.max_steps",
            steps,
            "--checkpoint.dirpath",
            "fit",
            *QUIET,
        ],
        ["sample", "--ckpt_path", "fit/last.ckpt", "--n", "3", "--out", "samples"],
        ["evaluate", "--zoo", zoo, "--samples", "samples", "--out", "report", "--n", "3", "--baselines", "[soup-2]"],
    )


def rows(path="report/results.json"):
    return {row["name"]: row for row in json.loads(Path(path).read_text())["rows"]}
