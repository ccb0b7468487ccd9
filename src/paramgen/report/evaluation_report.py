"""An evaluation to look at: a table with verdicts in a terminal and in a notebook, a data frame, or a folder of files."""

from collections.abc import Sequence
from functools import cached_property
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from paramgen.core.counting import counted
from paramgen.core.io import write_atomic, write_json
from paramgen.core.samples import Samples
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.flags import parse, say
from paramgen.evaluation.metric import Metric, RowDict
from paramgen.evaluation.registry import in_terminal, with_values
from paramgen.evaluation.results import Results, Row
from paramgen.report.page import page
from paramgen.report.verdicts import verdict
from paramgen.report.weights import weight_pictures


class EvaluationReport:
    """An evaluation that shows itself: ``print(report)``, the last line of a notebook's cell, :meth:`to_pandas`, :meth:`save`.

    Args:
        results: What was measured.
        zoo: What the generators learnt from.
        samples: One set of networks a generator.
        command: The command line that made it.
    """

    def __init__(self, results: Results, zoo: Zoo, samples: Sequence[Samples], command: str | None = None) -> None:
        self.results, self.command = results, command
        self._zoo, self._samples = zoo, samples
        self._values = results.to_dict()

    @property
    def rows(self) -> Sequence[Row]:
        """The rows: the zoo first, then references, generators and baselines."""
        return self.results.rows

    @cached_property
    def values(self) -> dict[str, Any]:
        """What ``results.json`` holds, as plain values."""
        return {**self._values, "command": self.command, "weights": weight_pictures(self._zoo, self._samples)}

    def save(self, out: str | Path) -> list[Path]:
        """Write report.html, its pictures as PNG files, and results.json, the latter last.

        Args:
            out: Folder; made if it does not exist.

        Returns:
            The files, results.json first.
        """
        from paramgen.report.png import save_plots  # it imports matplotlib, which takes a second

        folder = Path(out)
        write_atomic(folder / "report.html", page(self.values).encode())
        drawn = save_plots(self.values, folder)
        write_json(folder / "results.json", self.values)  # if it exists, the other files exist
        return [folder / "results.json", folder / "report.html", *drawn]

    def to_pandas(self) -> Any:
        """A pandas data frame with one line for each row and one column for each metric, in the units of ``results.json``.

        Raises:
            ParamgenError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ParamgenError(
                "to_pandas needs pandas, which is not installed: pip install 'paramgen[notebook]'"
            ) from error
        columns = with_values(self._values["rows"])
        data = {column.key: [column.value(row) for row in self._values["rows"]] for column in columns}
        about = {key: [row[key] for row in self._values["rows"]] for key in ("kind", "n")}
        return pd.DataFrame({**about, **data}, index=pd.Index([row.name for row in self.rows], name="networks"))

    def __rich__(self) -> Group:
        lines = [Text.assemble((sentence.name, "bold"), sentence.text) for sentence in sentences(self._values)]
        notes = [Text(note, style="yellow") for note in self._values["notes"]]
        return Group(Text.assemble(*headline(self._values)), table(self._values), *lines, *notes)

    def __repr__(self) -> str:
        console = Console(file=StringIO(), color_system=None, width=Console().width)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip("\n")

    def _repr_html_(self) -> str:
        (name, _), about = headline(self._values)
        shown = listing(self._values)
        head = "".join(f'<th title="{escape(c.definition, quote=True)}">{escape(c.title)}</th>' for c in shown.columns)
        body = "".join(_html_row(row, cells) for row, cells in zip(self._values["rows"], shown.cells, strict=True))
        lines = "".join(
            f"<p><b>{escape(sentence.name)}</b>{escape(sentence.text)}</p>" for sentence in sentences(self._values)
        )
        notes = "".join(f"<p><i>{escape(note)}</i></p>" for note in self._values["notes"])
        table_head = f"<thead><tr><th>networks</th>{head}</tr></thead>"
        return (
            f"<p><b>{escape(name)}</b>{escape(about)}</p><table>{table_head}<tbody>{body}</tbody></table>{lines}{notes}"
        )


class ShownTable(NamedTuple):
    """The columns of an evaluation's table, and its printed values."""

    columns: list[Metric]
    cells: list[list[str]]  # by row and column


class Sentence(NamedTuple):
    """What is said about a row."""

    name: str
    text: str


def listing(results: dict[str, Any]) -> ShownTable:
    """The columns and values of an evaluation's short table.

    Args:
        results: As ``results.json`` holds it.
    """
    rows, spec = results["rows"], ScoreSpec.from_dict(results["score"])
    columns = in_terminal(rows)
    return ShownTable(columns, [[column.text(row, spec) for column in columns] for row in rows])


def table(results: dict[str, Any]) -> Table:
    """The rows as a table for the terminal.

    Args:
        results: As ``results.json`` holds it.
    """
    rows, shown = results["rows"], listing(results)
    output = Table(box=None, header_style="dim", pad_edge=False, collapse_padding=True)
    output.add_column("networks", no_wrap=True)
    for column in shown.columns:
        output.add_column(column.terminal or column.key, justify="right", no_wrap=True)
    for row, cells, following in zip(rows, shown.cells, [*rows[1:], None], strict=True):
        ends = following is not None and following["kind"] != row["kind"]
        style = "bold" if row["kind"] == "generator" else None
        output.add_row(Text(row["name"]), *cells, style=style, end_section=ends)
    return output


def sentences(results: dict[str, Any]) -> list[Sentence]:
    """The verdict on each generator, and why a row is empty."""
    found = []
    for row in results["rows"]:
        if row["kind"] == "generator":
            found.append(Sentence(row["name"], ": " + " ".join(verdict(row, results))))
        elif not row["n"]:
            found.append(Sentence(row["name"], ": " + " ".join(say(parse(row["flags"])))))
    return found


def headline(results: dict[str, Any]) -> tuple[tuple[str, str], str]:
    """What was measured, in one line: the zoo's name with its style, and the rest."""
    networks = f"{counted(results['networks'], 'network')} of {counted(results['params'], 'parameter')}"
    return (results["zoo"], "bold"), f": {networks}, {_scored(results)}{counted(results['n'], 'network')} per row"


def _scored(results: dict[str, Any]) -> str:
    """The score and its items: ``accuracy in % on 597 test items, ``."""
    if results["score"] is None:
        return ""
    spec = ScoreSpec.from_dict(results["score"])
    better = "" if spec.higher_is_better else " (lower is better)"
    items = f" on {results['test_items']:,} test items" if results["test_items"] else ""
    return f"{spec.name}{spec.symbol and ' in'}{spec.symbol}{better}{items}, "


def _html_row(row: RowDict, cells: list[str]) -> str:
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    name = escape(row["name"])
    return f"<tr><td>{f'<b>{name}</b>' if row['kind'] == 'generator' else name}</td>{values}</tr>"
