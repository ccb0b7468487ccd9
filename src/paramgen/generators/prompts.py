"""Prompts: recorded scores of the training networks as conditions, as in G.pt (Peebles et al. 2022, arXiv:2209.12892).

A zoo records the score and the loss of each network on its train and val splits. A generator fitted with ``data.prompt: [val.loss]`` is
conditioned on them, and is asked for others when it samples. A loss enters as its logarithm: it falls by factors. K networks, C numbers.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, log

import torch
from torch import Tensor

from paramgen.core.zoo import PARTS, Zoo, ZooEntry
from paramgen.errors import ParamgenError, did_you_mean

LEAST = 1e-8  # a loss of 0 counts as this


def prompts_of(zoo: Zoo) -> list[str]:
    """What the networks of a zoo can be prompted by: ``train.loss``, ``val.accuracy``, …; what each of them has recorded."""
    names = [f"{part}.{what}" for part in PARTS for what in (zoo.score.name, "loss")]
    return [name for name in names if all(_value(zoo, entry, name) is not None for entry in zoo.entries)]


def training_conditions(zoo: Zoo, indices: Sequence[int], prompt: Sequence[str] = ()) -> Tensor | None:
    """What describes some networks to a generator: the conditions of their tasks, then the prompts; (K, C), or None without any.

    Args:
        zoo: The zoo.
        indices: Which networks.
        prompt: Names of recorded scores.

    Raises:
        ParamgenError: A prompt that the zoo does not record.
    """
    tasks = [zoo.entries[i].condition for i in indices]
    tables = [torch.tensor(tasks)] if tasks and None not in tasks else []
    if prompt:
        available = prompts_of(zoo)
        if unknown := [name for name in prompt if name not in available]:
            raise ParamgenError(
                f"Unknown prompt {unknown[0]!r} of zoo {zoo.name!r}. {did_you_mean(unknown[0], available)}"
            )
        tables.append(
            torch.tensor([_row({name: _value(zoo, zoo.entries[i], name) for name in prompt}) for i in indices])
        )
    return torch.cat(tables, 1) if tables else None


def prompt_ranges(zoo: Zoo, indices: Sequence[int], prompt: Sequence[str]) -> dict[str, list[float]]:
    """Lowest and highest value among some networks of each prompt, as recorded."""
    values = {name: [_value(zoo, zoo.entries[i], name) or 0.0 for i in indices] for name in prompt}
    return {name: [min(of), max(of)] for name, of in values.items()}


def parse_prompt(text: str) -> dict[str, float]:
    """Prompts from ``val.loss=0.1``, several separated by commas.

    Raises:
        ParamgenError: Another form, a value that is no finite number, or a name given twice.
    """
    prompts: dict[str, float] = {}
    for piece in text.split(","):
        name, equals, value = (part.strip() for part in piece.partition("="))
        number = _number(value)
        if not name or not equals or number is None:
            raise ParamgenError(f"prompt is {piece.strip()!r}, expected NAME=NUMBER, for example val.loss=0.1")
        if name in prompts:
            raise ParamgenError(f"prompt {name!r} is given twice")
        prompts[name] = number
    return prompts


def beyond(asked: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """A line for each prompt that is outside of what the training networks have.

    Args:
        asked: Value by name.
        ranges: Lowest and highest value of the training networks, by name.
    """
    bounded = [(name, value, ranges[name]) for name, value in asked.items() if name in ranges]
    return [
        f"prompt {name}={value:g} is outside the zoo's range, {low:.3g} to {high:.3g}"
        for name, value, (low, high) in bounded
        if not low <= value <= high
    ]


def prompt_row(asked: Mapping[str, float], known: Sequence[str], kind: str) -> Tensor:
    """The numbers (1, C) of prompts, in the order in which a generator takes them.

    Args:
        asked: Value by name.
        known: The names that it was fitted with.
        kind: Of the generator, for messages.

    Raises:
        ParamgenError: A generator without prompts, an unknown prompt, or one that is missing.
    """
    available = f"available: {', '.join(known)}"
    if not known:
        given = ", ".join(f"{name}={value:g}" for name, value in asked.items())
        raise ParamgenError(
            f"prompt {given} was given, but this {kind} takes no prompts: it was fitted without data.prompt"
        )
    if unknown := [name for name in asked if name not in known]:
        raise ParamgenError(f"Unknown prompt {unknown[0]!r} of this {kind}. {did_you_mean(unknown[0], known)}")
    if missing := [name for name in known if name not in asked]:
        raise ParamgenError(
            f"prompt {missing[0]!r} is missing: this {kind} takes all of its prompts or none; {available}"
        )
    if negative := [name for name in asked if _is_loss(name) and asked[name] <= 0]:
        raise ParamgenError(f"prompt {negative[0]} is {asked[negative[0]]:g}, expected a loss above 0")
    return torch.tensor([_row({name: asked[name] for name in known})])


def _row(values: Mapping[str, float | None]) -> list[float]:
    """Prompts as a generator reads them."""
    recorded = {name: value for name, value in values.items() if value is not None}
    return [log(max(value, LEAST)) if _is_loss(name) else value for name, value in recorded.items()]


def _is_loss(name: str) -> bool:
    return name.endswith(".loss")


def _value(zoo: Zoo, entry: ZooEntry, name: str) -> float | None:
    part = name.partition(".")[0]
    value = entry.scores.get(part, {}).get("loss" if _is_loss(name) else "score")
    return None if value is None else float(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
