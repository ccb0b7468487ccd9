"""What to know before believing a row, as values with a type; they become words when they are printed."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

FlagKind = Literal[
    "failed",
    "nonfinite",
    "collapsed",
    "narrow",
    "mean_plus_noise",
    "copies",
    "copies_aligned",
    "within_run",
    "within_run_aligned",
    "nearer_than_heldout",
    "some_near",
    "some_near_aligned",
    "same_predictions",
    "task_data",
    "seen_data",
    "worse",
    "alike",
]


class Flag(NamedTuple):
    """One thing to know.

    Args:
        kind: What.
        detail: Another row's name, a count or a reason, where the kind has one.
    """

    kind: FlagKind
    detail: str | None = None


WORDS: Mapping[FlagKind, str] = MappingProxyType(
    {
        "failed": "failed:",
        "nonfinite": "networks hold NaN or inf",
        "collapsed": "collapsed",
        "narrow": "narrow",
        "mean_plus_noise": "mean plus noise",
        "copies": "copies",
        "copies_aligned": "copies after alignment",
        "within_run": "within its run",
        "within_run_aligned": "within its run after alignment",
        "nearer_than_heldout": "nearer to the zoo than held-out runs",
        "some_near": "networks nearer to the zoo than new runs",
        "some_near_aligned": "networks nearer to the zoo than new runs, after alignment",
        "same_predictions": "networks predict as a training network does",
        "task_data": "used the task's data",
        "seen_data": "used data of seen tasks",
        "worse": "worse than",
        "alike": "cannot be told apart from",
    }
)
PER_SEED = (
    "nonfinite",
    "some_near",
    "some_near_aligned",
    "same_predictions",
)  # kinds whose detail counts networks of one seed


def parse(flags: Iterable[Mapping[str, Any]]) -> list[Flag]:
    """Flags as ``results.json`` holds them."""
    return [Flag(flag["kind"], flag["detail"]) for flag in flags]


def details(flags: Iterable[Flag], kind: FlagKind) -> list[str]:
    """The details of one kind."""
    return [flag.detail for flag in flags if flag.kind == kind and flag.detail is not None]


def say(flags: Iterable[Flag]) -> list[str]:
    """Flags in words, those of one kind together: ``worse than soup-16, gaussian``."""
    by_kind: dict[FlagKind, list[str]] = {}
    for flag in flags:
        by_kind.setdefault(flag.kind, []).extend([flag.detail] if flag.detail is not None else [])
    return [_say(kind, ", ".join(texts)) for kind, texts in by_kind.items()]


def _say(kind: FlagKind, detail: str) -> str:
    words = (detail, WORDS[kind]) if kind in PER_SEED else (WORDS[kind], detail)  # the count of networks comes first
    return " ".join(word for word in words if word)
