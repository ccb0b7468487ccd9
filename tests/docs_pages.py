"""What the documentation tells its readers to run: commands and Python blocks, page by page, in their order."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "checkpoints_zoo" / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "lab-notes.md"),
]
FENCED = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMPLETE = re.compile(  # a command within a sentence is complete if it names what it works on; else it shows an option
    r"(?<!`)`((?:[A-Z_]+=\S+ )*(?:paramgen (?=[^`]*--(?:config|ckpt_path|zoo|source|samples|comparison)\b)[^`…|]+"
    r"|python \w+/[^`…]+|make [a-z-]+))`(?!`)"
)
FILE = re.compile(r"ave this as `([\w.]+)`:\s*$")


class Step(NamedTuple):
    """One thing to run.

    Args:
        language: ``bash`` or ``python``.
        text: A command on one line without its comment, a script, or a block of Python.
        file: The file that the page says to save a block of Python as.
    """

    language: str
    text: str
    file: str | None = None


def steps(page: Path) -> list[Step]:
    """The steps of a page in their order; one that the page repeats stands once."""
    text, found, end = page.read_text(), list[Step](), 0
    for block in FENCED.finditer(text):
        before = text[end : block.start()]
        found += _in_sentences(before)
        indent, language, content = block.groups()
        code = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
        if language == "python":
            file = FILE.search(before)
            found.append(Step("python", code, file and file[1]))
        if language == "bash":
            found += [Step("bash", command) for command in commands(code)]
        end = block.end()
    return list(dict.fromkeys(found + _in_sentences(text[end:])))


def _in_sentences(text: str) -> list[Step]:
    return [Step("bash", command) for command in COMPLETE.findall(" ".join(text.split()))]


def commands(code: str) -> list[str]:
    """The commands of a block of bash; one that begins with ``#!`` is one script."""
    if code.startswith("#!"):
        return [code]
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s+)# .*", "", line).strip())]
