"""Asked against reached: the score that prompted networks were asked for, and the one that they have (G.pt, arXiv:2209.12892, Fig. 4).

Scored on the split that the prompt names, whose scores the generators learnt. S: seeds, A: asked values.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev, stdev
from typing import Any, NamedTuple

from paramgen.core.io import read_json, write_json
from paramgen.core.samples import INDEX, SampleInfo, read_samples
from paramgen.core.zoo import Zoo
from paramgen.generators.prompts import prompt_ranges
from paramgen.report.asked import asked_picture, save_asked_page
from paramgen.tasks import task_of

_log = logging.getLogger(__name__)


class PromptedScores(NamedTuple):
    """Networks of one generator, zoo and seed that were asked for one score."""

    zoo: str
    seed: int
    row: str  # which generator, and how it was sampled
    prompt: str
    asked: float
    reached: list[float]  # finite scores of its networks
    range: list[float]  # lowest and highest of the training networks


def prompted_scores(name: str, seed: int, zoo: Zoo, folders: Sequence[Path]) -> list[PromptedScores]:
    """What the networks of some folders were asked for by one prompt, and what they reach.

    Args:
        name: Of the zoo in the comparison.
        seed: Of the comparison.
        zoo: Its task scores the networks.
        folders: Of samples; those without a prompt, or with several, are left out.
    """
    results = []
    for folder in folders:
        prompt = (read_json(folder / INDEX, "samples").get("prompt") if (folder / INDEX).exists() else None) or {}
        if len(prompt) != 1:
            continue
        ((score, asked),) = prompt.items()
        samples, part = read_samples(folder, zoo), score.partition(".")[0]
        states = [zoo.complete(zoo.spec.unflatten(row)) for row in samples.weights[samples.weights.isfinite().all(1)]]
        scores = task_of(zoo).evaluate(states, part)
        values = scores.loss if score.endswith(".loss") else scores.value
        limits = prompt_ranges(zoo, zoo.indices("train"), [score])[score]
        reached = [] if values is None else values[values.isfinite()].tolist()
        if missing := len(samples.weights) - len(reached):
            _log.warning(
                "%s: %d of %d networks have no %s and are left out", folder, missing, len(samples.weights), score
            )
        results.append(PromptedScores(name, seed, _row(samples.info), score, asked, reached, limits))
    return results


def asked_and_reached(found: Sequence[PromptedScores], title: str) -> dict[str, Any]:
    """The figures of the picture: a panel a zoo, a row a generator; means over seeds, of one seed with the spread of its networks.

    Args:
        found: Of one prompt, one or more, each of which some networks have a finite score for.
        title: Of the comparison.
    """
    panels = []
    for zoo in dict.fromkeys(a.zoo for a in found):
        own = [a for a in found if a.zoo == zoo]
        rows = [_figures(name, [a for a in own if a.row == name]) for name in dict.fromkeys(a.row for a in own)]
        limits = [mean(a.range[end] for a in own) for end in (0, 1)]
        panels.append({"zoo": zoo, "range": limits, "rows": rows})
    return {
        "title": title,
        "prompt": found[0].prompt,
        "seeds": len({a.seed for a in found}),
        "networks": max(len(a.reached) for a in found),
        "panels": panels,
    }


def write_prompts(folder: Path, found: Sequence[PromptedScores], title: str) -> list[Path]:
    """Write ``prompts.json``, ``prompts.png`` and ``prompts.html``; nothing where no prompted network has a score.

    Args:
        folder: Of the comparison.
        found: Of all zoos and seeds; of several prompts only the first one's.
        title: Of the comparison.
    """
    same_prompt = [a for a in found if a.reached and a.prompt == found[0].prompt]
    if not same_prompt:
        return []
    from paramgen.report.png import save_picture  # matplotlib takes a second

    values = asked_and_reached(same_prompt, title)
    write_json(folder / "prompts.json", values)
    picture = save_picture(asked_picture(values), folder / "prompts.png")
    return [folder / "prompts.json", picture, save_asked_page(values, picture, folder / "prompts.html")]


def _figures(name: str, found: Sequence[PromptedScores]) -> dict[str, Any]:
    """Asked values (A,) in order, with mean and spread of what was reached."""
    asked = sorted({a.asked for a in found})
    means, spreads = [], []
    for value in asked:
        of_seeds = [a.reached for a in found if a.asked == value]
        each = [mean(reached) for reached in of_seeds]
        means.append(mean(each))
        spreads.append(stdev(each) if len(each) > 1 else pstdev(of_seeds[0]))
    return {"name": name, "asked": asked, "mean": means, "std": spreads}


def _row(info: SampleInfo) -> str:
    """The fit that networks are from and how they were sampled: what sets rows apart."""
    fit = Path(info.checkpoint).parent.name if info.checkpoint else str(info.generator)
    start = "" if info.start is None else ", with a start"
    guided = "" if info.guidance_scale in (None, 1) else f", guidance {info.guidance_scale:g}"
    return fit + start + guided
