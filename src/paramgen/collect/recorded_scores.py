"""Scores that a source records, as a zoo records them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from paramgen.collect.readers.found import Found
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import SplitScores

_ACCURACY = re.compile(r"acc(uracy)?|top[-_]?1|acc(uracy)?[-_@]?(top[-_]?)?1", re.IGNORECASE)
_LOWER = re.compile(r"loss|err(or)?|.*mse|mae|perplexity|ppl|nll|wer|cer", re.IGNORECASE)


class RecordedScores(NamedTuple):
    """What the scores are, and each network's by split."""

    spec: ScoreSpec | None
    scores: list[SplitScores]
    notes: list[str]


def recorded_scores(founds: Sequence[Found], lower_is_better: bool, margin: float) -> RecordedScores:
    """The scores that the source records on train and val: one score and the loss.

    Args:
        founds: The networks.
        lower_is_better: A lower score is better. Known for losses and errors.
        margin: A network is good when its score is not worse than the zoo's mean by more than this.
    """
    names = list(dict.fromkeys(name for found in founds for of in found.scores.values() for name in of))
    if not names:
        return RecordedScores(None, [{} for _ in founds], [])
    others = [name for name in names if name != "loss"]
    chosen = next((name for name in others if _ACCURACY.fullmatch(name)), others[0] if others else "loss")
    notes = [f"not recorded: {', '.join(unused)}"] if (unused := [n for n in others if n != chosen]) else []
    spec, factor = _spec(chosen, lower_is_better, margin), 1.0
    values = [of[chosen] for found in founds for of in found.scores.values() if chosen in of]
    if spec.unit == "percent" and any(value > 1 for value in values):
        notes.append(f"{chosen} is in percent, and is recorded as a fraction")
        factor = 0.01
    return RecordedScores(spec, [_of(found, chosen, factor) for found in founds], notes)


def _of(found: Found, chosen: str, factor: float) -> SplitScores:
    return {
        split: {
            "score": of[chosen] * factor if chosen in of else None,
            **({"loss": of["loss"]} if "loss" in of else {}),
        }
        for split, of in found.scores.items()
        if chosen in of or "loss" in of
    }


def _spec(name: str, lower_is_better: bool, margin: float) -> ScoreSpec:
    if _ACCURACY.fullmatch(name):
        return ScoreSpec("accuracy", margin=margin)
    if name.lower() == "psnr":
        return ScoreSpec("PSNR", "dB", True, margin, "linear")
    lower = lower_is_better or _LOWER.fullmatch(name) is not None
    return ScoreSpec(name, "plain", not lower, margin, "linear")
