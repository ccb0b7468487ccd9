"""The JSON schemas of ``results.json`` and ``comparison.json``, and the docs' table of metrics, from the types and the registry.

``python -m paramgen.evaluation.schema`` in a checkout rewrites all three; a test compares them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from paramgen.core.score import ScoreSpec
from paramgen.evaluation.flags import FlagKind
from paramgen.evaluation.intervals import Verdict
from paramgen.evaluation.metric import Metric
from paramgen.evaluation.registry import METRICS
from paramgen.evaluation.results import FORMAT, Kind, Results, Role, Row
from paramgen.evaluation.thresholds import Thresholds

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[Any, str] = {str: "string", bool: "boolean", int: "integer"}
BEGIN, END = "<!-- metrics: written by python -m paramgen.evaluation.schema -->", "<!-- end of metrics -->"


def schema_of(kind: Any) -> Schema:
    """The schema of plain values of a type: dataclasses, named tuples, literals, mappings and sequences; a float may be null (nan).

    Raises:
        TypeError: A type that has no schema.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if kind is float:
        return {"type": ["number", "null"]}
    if kind is Any:
        return {}
    if kind is Thresholds:
        number = {"type": "number"}
        return {"type": "object", "additionalProperties": {"anyOf": [number, {"type": "array", "items": number}]}}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return _or_null(schema_of(next(a for a in arguments if a is not NoneType)))
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin in (list, Sequence):
        return {"type": "array", "items": schema_of(arguments[0])}
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        names = [f.name for f in fields(kind)] if is_dataclass(kind) else list(kind._fields)
        types = get_type_hints(kind)
        return _object({name: schema_of(types[name]) for name in names})
    raise TypeError(f"{kind} has no schema")


def results_schema() -> Schema:
    """Of ``results.json``."""
    types = {f.name: schema_of(get_type_hints(Results)[f.name]) for f in fields(Results)}
    row = schema_of(Row)
    row["properties"]["values"] = _object({m.key: _value(m) for m in METRICS})
    row["properties"]["n"]["minimum"] = 0
    first = {"properties": {"role": {"enum": ["zoo", "direct"]}, "kind": {"const": "reference"}}}
    types["rows"] = {
        "type": "array",
        "minItems": 1,
        "prefixItems": [{"allOf": [{"$ref": "#/$defs/row"}, first]}],
        "items": {"$ref": "#/$defs/row"},
    }
    types["format"] = {"const": FORMAT}
    types["weights"] = {"type": "array", "items": _object(_WEIGHTS)}
    schema = _object(types)
    schema["required"] = [name for name in schema["required"] if name not in ("weights", "trajectories", "renders")]
    about = "What `paramgen evaluate` found. Shares are fractions; null where there is no figure. docs/evaluation.md defines each."
    return {"$schema": DIALECT, "title": "paramgen results", "description": about, **schema, "$defs": {"row": row}}


def comparison_schema() -> Schema:
    """Of ``comparison.json``."""
    text, integer, number = {"type": "string"}, {"type": "integer"}, {"type": "number"}
    maybe = {"type": ["number", "null"]}
    counted = {"type": "integer", "minimum": 1}
    figure = _object({"mean": number, "std": maybe, "mark": text})
    figure["required"] = ["mean", "std"]
    figures = {m.key: figure for m in METRICS if m.summary != "absent"}
    flag = _object({"kind": schema_of(FlagKind), "detail": {"type": ["string", "null"]}, "seeds": counted})
    summary = _object(
        {
            "zoo": text,
            "name": text,
            "kind": schema_of(Kind),
            "role": schema_of(Role),
            "n": {"type": "integer", "minimum": 0},
            "seeds": counted,
            "figures": {"type": "object", "additionalProperties": False, "properties": figures},
            "flags": {"type": "array", "items": flag},
        }
    )
    difference = _object(
        {
            "zoo": text,
            "first": text,
            "second": text,
            "seeds": counted,
            "mean": number,
            "std": maybe,
            "low": maybe,
            "high": maybe,
            "p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "verdict": schema_of(Verdict),
        }
    )
    schema = _object(
        {
            "title": text,
            "about": text,
            "seeds": {"type": "array", "minItems": 1, "items": integer},
            "paper": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": number}},
            "reports": {
                "type": "array",
                "minItems": 1,
                "items": _object({"zoo": text, "seed": integer, "file": text}),
            },
            "scores": {"type": "object", "additionalProperties": _or_null(schema_of(ScoreSpec))},
            "summary": {"type": "array", "items": summary},
            "differences": {"type": "array", "items": difference},
            "machine": text,
            "command": text,
        }
    )
    about = (
        "What `paramgen compare` found over zoos and seeds; std is over seeds, null with fewer than two. Differences are of mean scores, "
        "paired by seed, with 95 % intervals and, over several seeds, p-values after Holm's correction."
    )
    return {"$schema": DIALECT, "title": "paramgen comparison", "description": about, **schema}


def docs_table() -> str:
    """The metrics as a table in Markdown, between its two marks."""
    directions = {"higher": "higher", "lower": "lower", "score": "as the score", None: ""}
    lines = [BEGIN, "| key | on the page | definition | needs | better |", "| --- | --- | --- | --- | --- |"]
    for m in METRICS:
        needed = ", ".join(sorted(m.needs)).replace("_", " ")
        definition = m.definition.replace("|", "\\|")
        lines.append(f"| `{m.key}` | {m.title} | {definition} | {needed} | {directions[m.better]} |")
    return "\n".join([*lines, END])


def with_docs_table(page: str) -> str:
    """A page of the docs with the current table."""
    return page[: page.index(BEGIN)] + docs_table() + page[page.index(END) + len(END) :]


def _value(m: Metric) -> Schema:
    limits = {"minimum": m.form.least, "maximum": m.form.most}
    return {"type": ["number", "null"], **{name: limit for name, limit in limits.items() if limit is not None}}


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


def _or_null(schema: Schema) -> Schema:
    """The same, or null."""
    kind = schema.get("type")
    if kind is None or (kind == "object" and "required" in schema):
        return {"oneOf": [schema, {"type": "null"}]}
    return {**schema, "type": kind if isinstance(kind, list) else [kind, "null"]}


_MATRIX: Schema = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_PAIR: Schema = _object(
    {"name": {"type": "string"}, "network": {"type": "integer", "minimum": 0}, "sample": _MATRIX, "nearest": _MATRIX}
)
_WEIGHTS: dict[str, Schema] = {
    "tensor": {"type": "string"},
    "shape": {"type": "array", "items": {"type": "integer"}},
    "pairs": {"type": "array", "items": _PAIR},
}


def main() -> None:
    """Rewrite the schemas and the table."""
    source = Path(__file__).resolve().parents[1]
    for name, schema in (("results", results_schema()), ("comparison", comparison_schema())):
        (source / "core" / "schemas" / f"{name}.schema.json").write_text(json.dumps(schema, indent=2) + "\n")
    docs = source.parents[1] / "docs" / "evaluation.md"
    docs.write_text(with_docs_table(docs.read_text()))


if __name__ == "__main__":
    main()
