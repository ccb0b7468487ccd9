"""Names and sizes of modules: a public name means one thing, and a module can be read in one go."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "paramgen"


def test_a_public_name_is_defined_in_one_module():
    same = {
        "main",
        "COMMANDS",
        "evaluate",
        "T",
        "CONDITION",
        "AUTOENCODER",
        "DENOISER",
        "DIFFUSION",
        "OPTIMIZER",
    }  # entry points, verbs of commands, the evaluation for Python and the one it calls, type variables, backends' own defaults
    modules: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [getattr(node, "name", "")] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            names += [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                modules[name].add(str(path.relative_to(PACKAGE)))
    twice = {name: found for name, found in modules.items() if len(found) > 1 and not name.startswith("_")}
    assert not twice.keys() - same, twice


def test_no_module_is_longer_than_400_lines():
    assert not [str(path) for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400]
