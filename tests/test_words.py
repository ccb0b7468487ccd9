"""Docs and help are plain technical English, and the docs' tables match the package."""

import ast
import re
from pathlib import Path

from paramgen.errors import did_you_mean

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "paramgen"
BANNED = (  # phrases that are not idiomatic technical English here
    r"so many|the like\b|\bas (it is|they are)\b|\bwhatever|\bst(and|ands|ood)\b|\bbeside\b|\btold(?! apart)\b|was to be had|left and right"
    r"|who imports|\bways\b|\bmend|\bare none\b|\bnow and then\b|when left out"
)
TRANSLATED = (  # of pages for users: turns of other languages, rates without "per", other words for a term of the glossary
    r"\banew\b|\bstranger|\bone after the other\b|\bup to permutation\b|\bfor people\b"
    r"|\bgo(es)? on (where|under|from|until)\b"
    r"|\b(ms|s|seconds|bytes|networks?|tokens?|numbers?|parameters?|FLOP|points|steps?|checkpoints?|lines?|vectors?|prototypes?|classes) "
    r"an? (step|network|row|second|layer|token|parameter|tensor|run|value|zoo|task|minute|seed)\b"
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


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


def test_docs_use_no_banned_phrases():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "checkpoints_zoo" / "README.md"]
    assert [hit for page in pages for hit in banned(page.name, page.read_text())] == []


def test_docstrings_and_help_use_no_banned_phrases():
    hits = []
    for path in PACKAGE.rglob("*.py"):
        for n in ast.walk(ast.parse(path.read_text())):
            if isinstance(n, DOCUMENTED):
                hits += banned(f"{path.name} {getattr(n, 'name', '')}", ast.get_docstring(n) or "")
    assert hits == []


def test_pages_for_users_use_idiomatic_words():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "checkpoints_zoo" / "README.md"]
    pages = [page for page in pages if page.name not in ("lab-notes.md", "results.md")]
    assert [hit for page in pages for hit in banned(page.name, page.read_text(), TRANSLATED)] == []


def test_dataset_is_one_word_everywhere():
    folders = ("src", "configs", "docs", "benchmarks", "examples", "tests", "checkpoints_zoo")
    files = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    texts = [path for path in files if path.suffix in (".md", ".py", ".yaml", ".json") and path != Path(__file__)]
    assert [hit for path in texts for hit in banned(path.name, path.read_text(), r"\bdata[- ]sets?\b")] == []


def banned(name, text, phrases=BANNED):
    """Each banned phrase with its line."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{name}:{i}: {m[0]}" for i, line in lines for m in re.finditer(phrases, line, re.IGNORECASE)]


def test_an_unknown_name_gets_a_suggestion_and_the_available_names():
    assert did_you_mean("digts", ["mnist", "digits"]) == "Did you mean 'digits'? Available: digits, mnist."
    assert did_you_mean("x", ["digits"]) == "Available: digits."
    assert did_you_mean("x", []) == "None available."
    assert did_you_mean("x", map(str, range(20)), limit=2) == "Available: 0, 1 and 18 more."
