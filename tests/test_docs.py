"""The documentation follows the package: its commands, options, configs and messages exist."""

import ast
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.core.paths import list_configs

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").glob("*.md") if p.name != "lab-notes.md")]
SECTIONS = {
    "config",
    "model",
    "data",
    "trainer",
    "quality",
    "checkpoint",
    "ckpt_path",
    "seed_everything",
    "print_config",
}
MESSAGES_OF_OTHERS = ("operator torchvision::nms",)


def commands():
    """(page, words) of every complete ``paramgen`` command line in the docs."""
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        found = re.findall(r"(?:^\s*|\$ |`)(paramgen [^`\n]*)", text, re.MULTILINE)
        for line in dict.fromkeys(found):
            words = shlex.split(line.replace("'", "").replace('"', ""), comments=True)
            if (len(words) > 2 and words[2].startswith("-")) or words[1:2] == ["zoo"]:
                yield page.name, words[1:]


def options(words):
    return [word[2:].split("=")[0] for word in words if re.match(r"--[a-z]", word)]


@pytest.mark.parametrize(("page", "words"), [pytest.param(p, w, id=f"{p} {' '.join(w)}"[:90]) for p, w in commands()])
def test_commands_in_the_docs_exist_with_their_options_and_configs(page, words):
    command, *rest = words
    assert command in {**FUNCTIONS, **LIGHTNING}
    allowed = SECTIONS
    if command in FUNCTIONS and not FUNCTIONS[command].parses:
        module = import_module(f"paramgen.{FUNCTIONS[command].module}")
        function = module.COMMANDS[rest[0]] if hasattr(module, "COMMANDS") else module.main
        allowed = {"config", *inspect.signature(function).parameters}
    elif command == "plan":
        allowed = SECTIONS | {"devices", "device", "json", "efficiency", "zoo", "networks"}
    assert {option.split(".")[0] for option in options(rest)} <= allowed
    folder = FUNCTIONS[command].configs if command in FUNCTIONS else ""
    for config in (rest[i + 1] for i, word in enumerate(rest) if word == "--config"):
        names = {**list_configs(folder), **list_configs("")}
        assert config in ("NAME", "X") or "/" in config or config.endswith(".yaml") or config in names


def test_zoo_commands_in_the_docs_take_options_alone():
    for page, (command, *rest) in commands():
        if command in ("zoo", "generator"):
            assert len(rest) < 2 or rest[1].startswith(("-", "…", "|")), f"{page}: {command} {' '.join(rest)}"


def test_lists_in_commands_of_the_docs_are_quoted():
    bare = re.compile(r"paramgen [^`\n]*--[\w.]+[ =]\[")
    assert [(page.name, found) for page in PAGES for found in bare.findall(page.read_text())] == []


def test_pages_with_a_placeholder_for_a_checkpoint_explain_it():
    pages = {page.name: page.read_text() for page in PAGES}
    assert [name for name, text in pages.items() if "_path CKPT" in text and "`CKPT` is" not in text] == []


ZOO = re.compile(r"--(?:data\.)?zoo[ =]'?([a-z]\w*)")


@pytest.mark.parametrize("page", [p for p in PAGES if "CHANGELOG" not in p.name], ids=lambda p: p.name)
def test_zoos_in_the_docs_are_shipped_recipes_or_made_on_their_page(page):
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    made = {Path(name).name for name in re.findall(r"--out ([\w/]+)", text)}
    used = set(ZOO.findall("\n".join(re.findall(r"paramgen [^`\n]*", text))))
    assert used <= made | set(list_configs("zoo")) | {"true", "false"}


def test_every_page_is_in_the_navigation():
    pages = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert pages == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_site_builds_and_no_link_in_it_is_broken(tmp_path):
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path))
    build(config)  # strict: every warning is an error
    assert (tmp_path / "index.html").exists()
    assert "load_generator" in (tmp_path / "api" / "index.html").read_text()
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert sum("<math" in page for page in pages) > 5
    assert not [page for page in pages if "```" in page]  # a block that is not rendered


def test_python_blocks_of_the_docs_are_valid_python():
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            ast.parse(block)


def test_messages_of_the_troubleshooting_page_exist():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) > 10
    plain = re.sub(r'"\s*f?"', "", source)
    assert [
        h for h in headings if not h.startswith(MESSAGES_OF_OTHERS) and h not in re.sub(r"\{[^{}]*\}", "process", plain)
    ] == []
