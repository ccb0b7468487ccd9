"""JSON that is checked: strict text, and values that fit one of the package's ``*.schema.json`` files (JSON Schema).

Only the part of JSON Schema that those files use is implemented, so that opening a zoo of thousands of networks is fast; the tests
compare it with the reference implementation. An integer must be written as one (``1.0`` is none), a tuple counts as an array, and
``tensor`` is a type too, because checkpoints are checked in the same way.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from math import isfinite
from types import NoneType
from typing import Any, NamedTuple

from torch import Tensor

from paramgen.errors import ParamgenError, did_you_mean, shown

MAX_DEPTH = 64  # of nested lists and objects; the package's own files have at most 8
MAX_INTEGER = 2**63  # the range of an integer tensor


class Mismatch(NamedTuple):
    """Where a value does not fit its schema."""

    path: str  # ``.entries[3].run``
    what: str  # ``is 'a', expected an integer``

    def under(self, key: str | int) -> "Mismatch":
        """The same, seen from the container that holds the value under `key`."""
        return Mismatch(_step(key) + self.path, self.what)


def parse_json(data: bytes, where: str) -> Any:
    """Plain values from JSON text: UTF-8, finite numbers that fit 64 bits, no key twice, no nesting beyond 64 levels.

    Args:
        data: The text.
        where: Names it in messages.

    Raises:
        ParamgenError: It is not such text; line or field is named.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ParamgenError(f"{where} is not valid JSON: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ParamgenError(f"{where} is not valid JSON: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # not JSON, a repeated key, or an integer of thousands of digits
        raise ParamgenError(f"{where} is not valid JSON: {str(error).partition(';')[0]}") from error
    if mismatch := _unfit(value):
        raise ParamgenError(f"{where}: {_field(mismatch.path)} {mismatch.what}")
    return value


def check(value: Any, schema: str, where: str) -> None:
    """Refuse a value that does not fit a schema of the package.

    Args:
        value: Plain values, as :func:`parse_json` returns them; in checkpoints tensors too.
        schema: Name of the schema file without ``.schema.json``; ``name#part`` for one of its ``$defs``.
        where: Names the file in messages.

    Raises:
        ParamgenError: It does not fit; the field is named with what was given and expected.
    """
    name, _, part = schema.partition("#")
    root = load_schema(name)
    if mismatch := _mismatch(value, root["$defs"][part] if part else root, root):
        raise ParamgenError(f"{where}: {_field(mismatch.path)} {mismatch.what}")


@cache
def load_schema(name: str) -> dict[str, Any]:
    """A schema file of the package, by its name without ``.schema.json``."""
    schema: dict[str, Any] = json.loads(
        files("paramgen.core").joinpath("schemas", f"{name}.schema.json").read_text(encoding="utf-8")
    )
    return schema


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r:.60} occurs twice")
    return value


def _unfit(value: Any) -> Mismatch | None:
    """The first number or text in parsed JSON that other programs could not read; no recursion, since a file may nest to any depth."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        trail, value = waiting.pop()
        if isinstance(value, dict | list):
            if len(trail) == MAX_DEPTH:
                return Mismatch("", f"is nested deeper than {MAX_DEPTH} levels")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*trail, key), item) for key, item in items]
            value = next((key for key in value if isinstance(key, str) and _unfit_scalar(key)), None)
        if problem := _unfit_scalar(value):
            return Mismatch("".join(map(_step, trail)), problem)
    return None


def _unfit_scalar(value: Any) -> str | None:
    if type(value) is float and not isfinite(value):
        return f"is {value}, expected a finite number"
    if type(value) is int and not -MAX_INTEGER <= value < MAX_INTEGER:
        return f"is an integer of {len(str(abs(value)))} digits, expected one that fits 64 bits"
    if type(value) is str and not value.isascii() and re.search("[\ud800-\udfff]", value):
        return "holds half of a surrogate pair, expected Unicode text"
    return None


def _mismatch(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mismatch | None:
    """Where a value does not fit a schema; None where it fits. Its `type` comes first in a schema, before what relies on it."""
    for keyword, rule in schema.items():
        if (rule_check := KEYWORDS.get(keyword)) and (mismatch := rule_check(value, rule, schema, root)):
            return mismatch
    return None


def _type(value: Any, rule: str | list[str], schema: Any, root: Any) -> Mismatch | None:
    if type(value) is float and not isfinite(value):  # checkpoints may hold what JSON cannot
        return _refuse(value, "a finite number")
    if isinstance(value, dict) and (other := next((key for key in value if not isinstance(key, str)), None)):
        return Mismatch("", f"has the key {shown(other)}, expected texts as keys")
    for name in (rule,) if isinstance(rule, str) else rule:
        if isinstance(value, _TYPES[name]) and (type(value) is not bool or name == "boolean"):
            return None
    return _refuse(value, " or ".join(_WORDS[n] for n in ([rule] if isinstance(rule, str) else rule)))


def _properties(value: Any, rule: Mapping[str, Any], schema: Any, root: Any) -> Mismatch | None:
    if isinstance(value, dict):
        for key, of in rule.items():
            if key in value and (mismatch := _mismatch(value[key], of, root)):
                return mismatch.under(key)
    return None


def _required(value: Any, rule: list[str], schema: Any, root: Any) -> Mismatch | None:
    if isinstance(value, dict) and (missing := [key for key in rule if key not in value]):
        return Mismatch("", f"has no field {missing[0]!r}")
    return None


def _additional(value: Any, rule: Any, schema: Mapping[str, Any], root: Any) -> Mismatch | None:
    properties = schema.get("properties", {})
    for key in value if isinstance(value, dict) else ():
        if key not in properties:
            if rule is False:
                return Mismatch("", f"has an unknown field {key!r:.60}. {did_you_mean(str(key), properties)}")
            if isinstance(rule, dict) and (mismatch := _mismatch(value[key], rule, root)):
                return mismatch.under(key)
    return None


def _items(value: Any, rule: Mapping[str, Any], schema: Mapping[str, Any], root: Any) -> Mismatch | None:
    if isinstance(value, list | tuple):
        for i, item in enumerate(value[len(schema.get("prefixItems", ())) :], len(schema.get("prefixItems", ()))):
            if mismatch := _mismatch(item, rule, root):
                return mismatch.under(i)
    return None


def _prefix_items(value: Any, rule: list[Any], schema: Any, root: Any) -> Mismatch | None:
    if isinstance(value, list | tuple):
        for i, (item, of) in enumerate(zip(value, rule, strict=False)):
            if mismatch := _mismatch(item, of, root):
                return mismatch.under(i)
    return None


def _reference(value: Any, rule: str, schema: Any, root: Mapping[str, Any]) -> Mismatch | None:
    file, _, part = rule.partition("#/$defs/")
    home = load_schema(file.removesuffix(".schema.json")) if file else root
    return _mismatch(value, home["$defs"][part], home)


def _all_of(value: Any, rule: list[Any], schema: Any, root: Any) -> Mismatch | None:
    return next((mismatch for of in rule if (mismatch := _mismatch(value, of, root))), None)


def _any_of(value: Any, rule: list[Any], schema: Any, root: Any) -> Mismatch | None:
    mismatches = [_mismatch(value, of, root) for of in rule]
    if None in mismatches:
        return None
    return max((m for m in mismatches if m), key=lambda m: len(m.path))  # the closest fit


def _length(fits: Callable[[int, int], bool], word: str) -> Callable[..., Mismatch | None]:
    def rule_check(value: Any, rule: int, schema: Any, root: Any) -> Mismatch | None:
        if not isinstance(value, list | tuple) or fits(len(value), rule):
            return None
        return Mismatch("", f"has {len(value)} items, expected at {word} {rule}")

    return rule_check


def _limit(fits: Callable[[float, float], bool], word: str) -> Callable[..., Mismatch | None]:
    def rule_check(value: Any, rule: float, schema: Any, root: Any) -> Mismatch | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if not number or fits(value, rule) else _refuse(value, f"{rule} or {word}")

    return rule_check


def _enum(value: Any, rule: list[Any], schema: Any, root: Any) -> Mismatch | None:
    return None if value in rule else _refuse(value, ", ".join(map(repr, rule)))


def _const(value: Any, rule: Any, schema: Any, root: Any) -> Mismatch | None:
    return None if value == rule and type(value) is type(rule) else _refuse(value, repr(rule))


def _pattern(value: Any, rule: str, schema: Mapping[str, Any], root: Any) -> Mismatch | None:
    fits = not isinstance(value, str) or re.search(rule, value)
    return None if fits else _refuse(value, schema.get("description", rule))


def _refuse(value: Any, expected: str) -> Mismatch:
    return Mismatch("", f"is {shown(value)}, expected {expected}")


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if re.fullmatch(r"[A-Za-z_]\w*", key) else f"[{key[:60]!r}]"


def _field(path: str) -> str:
    return path.removeprefix(".") or "the content"


_TYPES: dict[str, Any] = {
    "object": dict,
    "array": (list, tuple),
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": NoneType,
    "tensor": Tensor,
}
_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "tensor": "a tensor",
}
KEYWORDS: dict[str, Callable[..., Mismatch | None]] = {
    "type": _type,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "prefixItems": _prefix_items,
    "items": _items,
    "$ref": _reference,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _any_of,
    "minItems": _length(lambda n, least: n >= least, "least"),
    "maxItems": _length(lambda n, most: n <= most, "most"),
    "minimum": _limit(lambda x, least: x >= least, "more"),
    "maximum": _limit(lambda x, most: x <= most, "less"),
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
}
