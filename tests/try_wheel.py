"""Try the sdist and the wheel, each in an environment of its own outside the checkout: requirements are met, and the first commands work.

    python tests/try_wheel.py dist      # make dist

The environment holds the package alone. The dependencies are those of the interpreter that runs this script, so nothing is downloaded.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false", "--quality.sample_every", "0"]
COMMANDS = (
    "--version",
    "configs",
    "fit --config pdiff_digits_mlp --data.zoo digits_small --trainer.max_steps 20 --checkpoint.dirpath fit",
    "sample --ckpt_path fit/last.ckpt --n 4 --out samples",
    "evaluate --zoo digits_small --samples samples --baselines [soup-2] --out report",
    "collect --config digits_small --checkpoints 2 --epochs 1 --out zoo",
)
CHECK = """
from importlib.metadata import requires, version
from pathlib import Path
import sys
from packaging.requirements import Requirement
import paramgen
assert Path(paramgen.__file__).is_relative_to(sys.prefix), paramgen.__file__
for line in requires("paramgen"):
    needed = Requirement(line)
    if needed.marker is None or needed.marker.evaluate({"extra": ""}):
        assert version(needed.name) in needed.specifier, (line, version(needed.name))
assert paramgen.__version__ == version("paramgen")
"""


def main(folder: Path) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "pyproject.toml",
        "configs/pdiff.yaml",
        "checkpoints_zoo/digits_small/zoo.json",
        "tests/conftest.py",
    ):
        assert needed in names, f"{needed} is not in {sdist}"
    try_out(sdist, COMMANDS[:2])
    try_out(wheel, COMMANDS)


def try_out(package: Path, commands: Sequence[str]) -> None:
    """Install a wheel or an sdist in an environment of its own, and run some commands there."""
    with tempfile.TemporaryDirectory() as place:
        env = Path(place, "env")
        venv.create(env, with_pip=True)
        (site,) = env.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        python = str(env / "bin" / "python")
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        run = lambda *words: subprocess.run(words, cwd=place, env=variables, check=True)  # noqa: E731
        offline = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
        run(python, "-m", "pip", "install", *offline, str(package.resolve()))
        run(python, "-c", CHECK)
        for command in commands:
            words = command.split() + (QUIET if command.startswith("fit") else [])
            print(f"paramgen {command}", flush=True)
            run(str(env / "bin" / "paramgen"), *words)
    print(f"{package.name}: installed, and its commands work")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
