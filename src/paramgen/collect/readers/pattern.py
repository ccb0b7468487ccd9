"""``--pattern``: what a path says about a network.

``run{run}/step{step}_acc{val.accuracy}.pth`` is compared with paths relative to the source. ``*`` is any text within a folder's or file's
name, ``**/`` any folders. Fields: ``{run}`` and ``{parent}`` are texts, ``{step}`` and ``{seed}`` whole numbers, ``{train.NAME}`` and
``{val.NAME}`` scores, ``{condition}`` or ``{condition.NAME}`` numbers or words. ``{test.NAME}`` is read and dropped.
"""

import re
from collections.abc import Mapping
from typing import Any

from paramgen.collect.readers.conditions import UNNAMED
from paramgen.collect.readers.found import Found, Value
from paramgen.core.zoo import Split
from paramgen.errors import ParamgenError, did_you_mean

FIELDS = ("run", "step", "seed", "split", "parent", "condition")
_SCORES = ("train.", "val.", "test.")
_WHOLE, _NUMBER, _TEXT = r"\d+", r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", r"[^/]+?"
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "heldout": "heldout",
    "test": "heldout",
    "valid": "val",
    "validation": "val",
}


class PathPattern:
    """A pattern with named fields.

    Args:
        text: The pattern.

    Raises:
        ParamgenError: An unknown or repeated field, or a brace without its partner.
    """

    def __init__(self, text: str) -> None:
        self.text, self.fields = text, list[str]()
        parts = re.split(r"(\{[^{}]*\}|\*\*/|\*|\?)", text)
        if any("{" in part or "}" in part for part in parts[::2]):
            raise ParamgenError(f"--pattern {text!r}: unbalanced braces")
        self._expression = re.compile("".join(self._piece(part) for part in parts))

    @property
    def glob(self) -> str:
        """The pattern with ``*`` in place of its fields."""
        return re.sub(r"\{[^{}]*\}", "*", self.text)

    def match(self, path: str) -> dict[str, str] | None:
        """The texts of the fields in a path; None if it does not fit."""
        match = self._expression.fullmatch(path)
        return None if match is None else dict(zip(self.fields, match.groups(), strict=True))

    def _piece(self, part: str) -> str:
        if part in ("**/", "*", "?"):
            return {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}[part]
        if not part.startswith("{"):
            return re.escape(part)
        field = part[1:-1]
        check_field(field, f"--pattern {self.text!r}")
        if field in self.fields:
            raise ParamgenError(f"--pattern {self.text!r} has the field {field!r} twice")
        self.fields.append(field)
        if field in ("step", "seed"):
            return f"({_WHOLE})"
        return f"({_NUMBER})" if field.startswith(_SCORES) else f"({_TEXT})"


def check_field(field: str, where: str) -> None:
    """Raise ParamgenError unless a field of a pattern or a column of a table has a known name."""
    known = field in FIELDS or (field.startswith((*_SCORES, "condition.")) and field.partition(".")[2])
    if not known:
        available = [*FIELDS, "condition.NAME", "train.NAME", "val.NAME"]
        raise ParamgenError(f"{where}: unknown field {field!r}. {did_you_mean(field, available)}")


def described(found: Found, values: Mapping[str, str], where: str) -> Found:
    """A network with what the fields of its path, or the columns of its row, say about it.

    Args:
        found: The network.
        values: Texts by field; empty ones say nothing.
        where: Names their origin in messages.

    Raises:
        ParamgenError: A text that is not of its field's kind.
    """
    changes: dict[str, Any] = {}
    condition, scores = dict(found.condition), {split: dict(of) for split, of in found.scores.items()}
    for field, text in values.items():
        if text == "":
            continue
        group, _, name = field.partition(".")
        if group == "condition":
            condition[name or UNNAMED] = _value(text)
        elif name:
            if group != "test":  # scores on the test split are the evaluator's
                scores.setdefault(group, {})[name] = _number(text, field, where)
        elif field == "split":
            if text not in SPLIT_WORDS:
                raise ParamgenError(f"{where}: split is {text!r}, expected train, val or heldout")
            changes[field] = SPLIT_WORDS[text]
        else:
            changes[field] = _whole_number(text, field, where) if field in ("step", "seed") else text
    return found.with_(condition=condition, scores=scores, **changes)


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text


def _whole_number(text: str, field: str, where: str) -> int:
    number = _number(text, field, where)
    if not number.is_integer():  # nor are NaN and infinity
        raise ParamgenError(f"{where}: {field} is {text!r}, expected a whole number")
    return int(number)


def _number(text: str, field: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ParamgenError(f"{where}: {field} is {text!r}, expected a number") from error
