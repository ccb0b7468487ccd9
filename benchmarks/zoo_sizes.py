"""How large each shipped recipe's zoo gets: the table in checkpoints_zoo/README.md, from the recipes themselves.

python benchmarks/zoo_sizes.py       # rewrite the table; networks are built without values
"""

import re
from pathlib import Path
from typing import Any

import yaml

from paramgen.cli.planned_zoo import planned_zoo
from paramgen.core.paths import list_configs

README = Path(__file__).resolve().parents[1] / "checkpoints_zoo" / "README.md"
START, END = "<!-- recipes: written by python benchmarks/zoo_sizes.py -->\n", "<!-- end of recipes -->"
HEAD = "| command | networks | parameters | size | contents |\n| --- | ---: | ---: | ---: | --- |\n"


def row(name: str, path: Path) -> str:
    """A line of the table."""
    text = path.read_text()
    recipe: dict[str, Any] = yaml.safe_load(text)
    command = "collect_tasks" if "family" in recipe else "collect"
    what = re.split(r"[:;.] (?![^(]*\))|\.$", text.splitlines()[0].removeprefix("# ").removeprefix("collect_tasks: "))[
        0
    ]
    start = f"| `paramgen {command} --config {name}` |"
    try:
        shape = planned_zoo(f"./{name}").shape
    except Exception as error:  # its network or tasks need data or a library that is not here
        print(f"{name}: {error}")
        return f"{start} | | | {what} |"
    networks = shape.networks if "family" in recipe else recipe.get("runs", 1) * recipe.get("checkpoints", 100)
    size = networks * shape.network_bytes + shape.fixed
    return f"{start} {networks:,} | {shape.spec.numel:,} | {in_units(size)} | {what} |"


def in_units(size: float) -> str:
    """Bytes in readable units."""
    unit = next(i for i in range(4) if size < 1000 ** (i + 1))
    return f"{size / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB')[unit]}"


def with_table(text: str) -> str:
    """The README's text with the table of today's recipes."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    rows = [row(name, path) for name, path in list_configs("zoo").items()]
    return "".join([before, START, HEAD, "\n".join(rows), "\n", END, after])


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
