"""Docs and help are plain technical English, and the docs' tables match the package."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "paramgen"


def test_architecture_lists_every_folder_at_its_level():
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| (\d+) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert {name for name, _ in rows} == folders | {"errors.py", "diffusion.py"}
    layers = re.search(r"layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    ordered = [re.findall(r"paramgen\.(\w+)", line) for line in reversed(layers.strip().splitlines())]
    levels = {name: level for level, names in enumerate(ordered, 1) for name in names}
    assert {name.removesuffix(".py"): int(level) for name, level in rows} == {
        name: level for name, level in levels.items() if name != "api"
    }
