"""Conditions that a source records: numbers, words, vectors and sets of words by name, and the vector of numbers that they make."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from paramgen.collect.readers.found import Found, Value
from paramgen.errors import ParamgenError, did_you_mean

RECORDED = "recorded"  # in zoo.json
UNNAMED = "condition"  # the name of a condition that has none


class RecordedConditions(NamedTuple):
    """The conditions of all networks as vectors, and what their numbers are."""

    vectors: list[list[float]] | None  # None: they are not conditioned
    fields: list[dict[str, Any]]
    left_out: list[str]  # names of what is the same for all networks, or names each run instead of describing it

    def config(self) -> dict[str, Any]:
        """What zoo.json says about them."""
        return {"kind": RECORDED, "dim": sum(width(field) for field in self.fields), "fields": self.fields}


def recorded(
    founds: Sequence[Found], runs: Sequence[int], names: Sequence[str] | None, chosen: bool
) -> RecordedConditions:
    """Encode what is known about each network.

    A number stays a number, a word becomes one-hot, a set of words one number for each, 0 or 1, and a vector is taken as given.

    Args:
        founds: The networks.
        runs: The run of each.
        names: Parts to use, in this order. Default: all that differ between networks.
        chosen: The user chose the parts by a pattern or a table: words that name each run are kept.

    Raises:
        ParamgenError: An unknown name, or a part that some networks lack, that is of another kind in some of them, or that is not finite.
    """
    available = list(dict.fromkeys(name for found in founds for name in found.condition))
    for name in names or ():
        if name not in available:
            raise ParamgenError(f"--condition: no {name!r} is recorded. {did_you_mean(name, available)}")
    fields, left_out, columns = [], list[str](), list[list[list[float]]]()
    for name in available if names is None else names:
        values = [_value(found, name) for found in founds]
        field = _field(name, values, founds)
        words = field["kind"] == "choice" and len(field["values"]) == len({*runs}) and len({*runs}) > 1
        if names is None and (len({*values}) == 1 or (words and not chosen)):
            left_out.append(name)
            continue
        fields.append(field)
        columns.append([_numbers(value, field) for value in values])
    if not fields:
        return RecordedConditions(None, [], left_out)
    return RecordedConditions(
        [[x for part in parts for x in part] for parts in zip(*columns, strict=True)], fields, left_out
    )


def width(field: Mapping[str, Any]) -> int:
    """How many numbers a part has."""
    return len(field["values"]) if "values" in field else int(field.get("width", 1))


def condition_words(config: Mapping[str, Any]) -> str:
    """The parts of a recorded condition in words, in the order of their numbers."""
    unnamed = len(config["fields"]) == 1 and config["fields"][0]["name"] == UNNAMED
    return "; ".join(_range(field) if unnamed else f"{field['name']}: {_range(field)}" for field in config["fields"])


def _range(field: Mapping[str, Any]) -> str:
    """What the numbers of one part are."""
    if "values" not in field:
        return "a number" if field["kind"] == "number" else f"{width(field)} numbers"
    known, kind = list(field["values"]), {"choice": "one of", "set": "any of"}[field["kind"]]
    return f"{kind} {', '.join(known[:12])}{' …' if len(known) > 12 else ''}"


def _value(found: Found, name: str) -> Value:
    if name not in found.condition:
        raise ParamgenError(f"{found.name} has no condition {name!r}, which other networks have")
    value = found.condition[name]
    numbers = value if isinstance(value, tuple) else [value] if isinstance(value, float | int) else []
    if odd := [number for number in numbers if not isfinite(number)]:
        raise ParamgenError(
            f"{found.name}: condition {name!r} is {odd[0]}, expected finite numbers; choose others with --condition"
        )
    return value


def _field(name: str, values: Sequence[Value], founds: Sequence[Found]) -> dict[str, Any]:
    """What one part is, with the words that occur in it."""
    numbers = [isinstance(value, float | int) for value in values]
    if any(numbers) and not all(numbers) and all(isinstance(value, float | int | str) for value in values):
        return {"name": name, "kind": "choice", "values": sorted({_word(value) for value in values})}
    kinds = {type(value) for value in values} if not all(numbers) else {float}
    if len(kinds) > 1:
        raise ParamgenError(f"condition {name!r} is of several kinds, for example in {founds[0].name}")
    (kind,) = kinds
    if kind is float:
        return {"name": name, "kind": "number"}
    if kind is str:
        return {"name": name, "kind": "choice", "values": sorted({str(value) for value in values})}
    if kind is frozenset:
        return {"name": name, "kind": "set", "values": sorted({word for value in values for word in value})}  # type: ignore[union-attr]
    lengths = {len(value) for value in values}  # type: ignore[arg-type]
    if len(lengths) > 1:
        raise ParamgenError(
            f"condition {name!r} has vectors of {min(lengths)} to {max(lengths)} numbers, expected one length"
        )
    return {"name": name, "kind": "vector", "width": lengths.pop()}


def _numbers(value: Value, field: Mapping[str, Any]) -> list[float]:
    if field["kind"] == "choice":
        return [float(_word(value) == word) for word in field["values"]]
    if isinstance(value, frozenset):
        return [float(word in value) for word in field["values"]]
    if isinstance(value, tuple):
        return [float(number) for number in value]
    return [float(value)]


def _word(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
