"""Model cards: the ``README.md`` of a generator or a zoo on the Hub, written from its checkpoint or ``zoo.json`` and ``results.json``.

Every value from a file is escaped: it cannot change the page's structure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import yaml

from paramgen.core.counting import counted
from paramgen.core.hub import HubPlace
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import PARTS, Zoo
from paramgen.evaluation.flags import parse, say
from paramgen.evaluation.metric import RowDict
from paramgen.evaluation.registry import in_terminal
from paramgen.report.verdicts import verdict
from paramgen.report.view import ResultsDict

HOME = "https://github.com/paramgen/paramgen"
DOCS = f"{HOME}/blob/main/docs"
TRUST = "paramgen reads these files without running code from them."
OWN = "These files name {path}, which is not part of paramgen: install its package, and add `--trust true` if you trust its author."


def generator_card(
    checkpoint: Mapping[str, Any],
    place: HubPlace,
    licence: str | None,
    results: ResultsDict | None,
    evaluated: bool = True,
) -> str:
    """The card of a generator.

    Args:
        checkpoint: Its content.
        place: Where it will be.
        licence: Its identifier on the Hub, such as ``mit``.
        results: Of an evaluation, as ``results.json`` holds them.
        evaluated: Whether the evaluation is of this very checkpoint.
    """
    saved = checkpoint["paramgen"]
    backend, zoo, spec = saved["class_path"].rpartition(".")[2], saved["zoo"], saved["codec"]["spec"]
    size = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    generated = sum(prod(tensor["shape"]) for tensor in spec["tensors"])
    networks = f"{counted(len(zoo.get('networks', [])), 'network')} of {counted(len(set(zoo.get('runs', []))), 'run')}"
    facts = {
        "Generator": f"{backend}, {size:,} numbers",
        "Generates": f"{counted(generated, 'parameter')} in {counted(len(spec['tensors']), 'tensor')} of each network",
        "Learnt from": f"{networks}, zoo {zoo['name']}",
        "Task": _task(zoo.get("task")),
        "Task data": "used in training" if saved["uses_task_data"] else "not used: it learnt from weights alone",
        "Fit": f"{saved['fit_seconds']:,.0f} s" + (f", {saved['fit_command']}" if saved.get("fit_command") else ""),
        "paramgen": saved["version"],
    }
    use = f"""```
pip install paramgen
paramgen sample --ckpt_path {place} --n 10 --out samples
```

```python
from paramgen import load_generator

states = load_generator("{place}").sample(10)  # complete state dicts
```

Networks can be [exported]({DOCS}/export.md) to timm, torchvision, transformers, diffusers, peft and ONNX.
{_trust(saved["class_path"])}"""
    opening = f"A generator of neural-network weights, fitted with [paramgen]({HOME}). {_about(results)}"
    sections = {
        "What it learnt": _bullets(facts),
        "Results": _results(results, evaluated),
        "How to use it": use,
        "Licence": _licence(licence, "generator"),
    }
    return _page(place.repo, opening, sections, licence, ["weight-generation", backend.lower()])


def zoo_card(zoo: Zoo, place: HubPlace, licence: str | None) -> str:
    """The card of a zoo.

    Args:
        zoo: The zoo.
        place: Where it will be.
        licence: Its identifier on the Hub, such as ``mit``.
    """
    facts = {
        "Networks": zoo.splits_in_words(),
        "Parameters": f"{zoo.spec.numel:,} in {counted(len(zoo.spec.tensors), 'tensor')} of each network",
        "Task": _task(zoo.task_config),
    }
    for part in PARTS:
        if (scores := zoo.scores_in_words(part)) is not None:
            facts[f"{zoo.score.name.capitalize()}, {part}"] = scores
    name = place.repo.partition("/")[2]
    use = f"""```
pip install paramgen
paramgen zoo pull --repo {place} --out checkpoints_zoo/{name}
paramgen fit --config pdiff --data.zoo {name}
```

Splits are by run: fit generators on `train`, choose on `val`, and compare with `heldout`.
{_trust((zoo.task_config or {}).get("class_path", ""))}"""
    sections = {"What it holds": _bullets(facts), "How to use it": use, "Licence": _licence(licence, "zoo")}
    opening = f"Trained networks of one architecture, to learn weight generation from; made with [paramgen]({HOME})."
    return _page(place.repo, opening, sections, licence, ["weight-generation", "model-zoo"])


def results_table(results: ResultsDict) -> str:
    """The rows of an evaluation as a table in Markdown; generators are bold."""
    spec = ScoreSpec.from_dict(results["score"])
    columns = in_terminal(results["rows"])
    lines = [
        ["networks", *(str(column.terminal) for column in columns), "to know"],
        ["---", *["---:"] * len(columns), "---"],
    ]
    for row in results["rows"]:
        name = _cell(row["name"])
        name = f"**{name}**" if row["kind"] == "generator" else name
        lines.append(
            [name, *(_cell(column.text(row, spec)) for column in columns), _cell("; ".join(say(parse(row["flags"]))))]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _results(results: ResultsDict | None, evaluated: bool) -> str:
    if results is None:
        return (
            "No evaluation is attached, so nothing is claimed about the quality or the novelty of its networks. "
            "`paramgen evaluate` compares them with copies, averages and noise."
        )
    lines = [_measured(results), results_table(results)]
    rows: Iterable[RowDict] = results["rows"]
    lines += [
        f"{_cell(row['name'])}: {_cell(' '.join(verdict(row, results)))}" for row in rows if row["kind"] == "generator"
    ]
    lines += [_cell(note) for note in results["notes"]]
    if not evaluated:
        lines.append("The evaluation is of another checkpoint file than the one here.")
    lines.append(
        "Rows that are not bold are references and baselines: what copies, averages and noise reach. Distances are to the "
        f"nearest training network. [What the columns mean]({DOCS}/evaluation.md); all figures are in `results.json`."
    )
    if results.get("command"):
        lines.append(f"Made by `{_code(results['command'])}`.")
    return "\n\n".join(lines)


def _measured(results: ResultsDict) -> str:
    """What the rows are: ``accuracy in %, 100 networks a row, 597 test items``."""
    spec, items = ScoreSpec.from_dict(results["score"]), results["test_items"]
    score = f"{spec.name} in{spec.symbol}" if spec.symbol else spec.name
    better = "" if spec.higher_is_better else " (lower is better)"
    over = f" on {counted(items, 'test item')}" if items else ""
    what = (
        "Weights alone are compared"
        if results["score"] is None
        else f"Mean, spread and best are of the {score}{better}{over}"
    )
    return f"{_cell(what)}; {counted(results['n'], 'network')} per row."


def _about(results: ResultsDict | None) -> str:
    return (
        "Its networks are compared with copies, averages and noise below." if results else "It has no evaluation yet."
    )


def _task(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return "unknown (weights alone)"
    arguments = config.get("init_args") or {}
    shown = ", ".join(f"{key} {arguments[key]}" for key in ("dataset", "network") if arguments.get(key))
    name = config["class_path"].rpartition(".")[2]
    return f"{name} ({shown})" if shown else name


def _trust(path: str) -> str:
    """What running the files of a class takes."""
    own = path and "." in path and not path.startswith("paramgen.")
    return f"{TRUST} {OWN.format(path=f'`{_code(path)}`')}" if own else TRUST


def _licence(licence: str | None, what: str) -> str:
    given = (
        f"The author gives this {what} under the licence `{_code(licence)}`."
        if licence
        else "The author has not named a licence."
    )
    return f"{given} The data and the published weights that it was made from have their own."


def _bullets(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {_cell(value)}" for key, value in facts.items())


def _page(title: str, opening: str, sections: Mapping[str, str], licence: str | None, tags: Sequence[str]) -> str:
    head = {"library_name": "paramgen", "tags": list(tags), **({"license": licence} if licence else {})}
    parts = [f"# {title}", opening, *(f"## {name}\n\n{text}" for name, text in sections.items())]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n" + "\n\n".join(parts) + "\n"


def _cell(text: object) -> str:
    """Text on one line in which no character has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _code(text: object) -> str:
    return " ".join(str(text).split()).replace("`", "'")
