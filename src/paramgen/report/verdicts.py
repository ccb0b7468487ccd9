"""What figures mean, in sentences: of a generator's row, of generators over seeds. They say what the thresholds and the tests say."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, log
from typing import Any, get_args

from paramgen.core.counting import counted, size_text
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.compare import score_of, starred
from paramgen.evaluation.flags import Flag, FlagKind, details, parse
from paramgen.evaluation.intervals import Verdict
from paramgen.evaluation.metric import RowDict
from paramgen.evaluation.registry import metric
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report.view import ResultsDict

LEVEL = f"{100 * THRESHOLDS.level:.0f} %"
WAYS = {  # rows in words
    "direct": "training on the unseen tasks themselves",
    "pooled": "one adapter for all tasks",
    "start": "the start of all adapters",
    "no adapter": "the network without an adapter",
    "nearest": "copying the nearest task",
    "average-2": "averaging two neighbours",
    "average-all": "averaging all tasks",
    "ridge": "ridge regression",
    "vote-5": "a vote of five neighbours",
    "random-init": "untrained weights",
    "nearest-noised": "a noised copy of the nearest task",
}
PHRASES: Mapping[Verdict, str] = {
    "better": "is better than",
    "alike": "cannot be told apart from",
    "worse": "is worse than",
}
COUNTED: Mapping[FlagKind, str] = {  # flags whose detail counts networks
    "some_near": "are nearer to a training network than new runs",
    "some_near_aligned": "are nearer to a training network than new runs, after alignment",
    "same_predictions": "predict as one training network does on every test item",
}
MOST_LISTED = 8  # rows; more are counted


def verdict(row: RowDict, results: ResultsDict) -> list[str]:
    """What a generator's figures mean, in sentences.

    Args:
        row: The generator's row.
        results: All of it; the zoo's row comes first.
    """
    flags, spec = parse(row["flags"]), ScoreSpec.from_dict(results["score"])
    if row.get("tasks"):
        sentences = _on_unseen_tasks(row, results["rows"], spec)
        saw = "It was fitted with data of seen tasks; the baselines without a generator were not."
    else:
        sentences = [] if results["score"] is None else [_on_score(row, results["rows"][0], spec)]
        if row["values"]["nn_ratio"] is not None:
            sentences += _on_distance(row, results, flags)
        if row["values"]["dispersion"] is not None:
            sentences.append(_on_spread(row, results, flags))
        sentences += _on_baselines(flags, spec)
        saw = "It used the task's data; rows without this mark did not."
    if row["nonfinite"]:
        holds = "holds" if row["nonfinite"] == 1 else "hold"
        which = "Its network" if row["n"] == 1 else f"{row['nonfinite']} of its {row['n']} networks"
        sentences.append(f"{which} {holds} NaN or inf.")
    if row["uses_task_data"]:
        sentences.append(saw)
    return sentences + _on_storage(row["name"], results)


def over_seeds(zoo: str, comparison: dict[str, Any]) -> list[str]:
    """How each generator of a zoo compares with all other rows, in mean score: a sentence each.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    generators = {row["name"]: row for row in rows if row["kind"] == "generator"}
    pairs = [pair for pair in comparison["differences"] if pair["zoo"] == zoo and pair["second"] not in generators]
    sentences, spec = [], score_of(zoo, comparison)
    for name, row in generators.items():
        own = [pair for pair in pairs if pair["first"] == name]
        by_verdict = {
            verdict: [_gap(pair, spec) for pair in own if pair["verdict"] == verdict] for verdict in get_args(Verdict)
        }
        clauses = "; ".join(
            f"{PHRASES[verdict]} {_counted(others)}" for verdict, others in by_verdict.items() if others
        )
        if clauses:
            measure = f"{spec.name} on unseen tasks" if "worst_task" in row["figures"] else f"mean {spec.name}"
            sentences.append(f"{starred(row)} {clauses}. {_in_points(measure, spec)}; {_tested(own)}.")
    return sentences


def between(pair: dict[str, Any], spec: ScoreSpec) -> str:
    """How one generator compares with another in mean score, in a sentence.

    Args:
        pair: Of the differences of ``comparison.json``.
        spec: What networks are scored by.
    """
    outcome = f"{pair['first']} {PHRASES[pair['verdict']]} {_gap(pair, spec)}"
    return f"{outcome}. {_in_points(f'mean {spec.name}', spec)}; {_tested([pair])}."


def _in_points(measure: str, spec: ScoreSpec) -> str:
    """What differences are counted in: ``Points of mean accuracy``, ``dB of mean PSNR``, ``Mean perplexity``."""
    words = f"{spec.points} of {measure}" if spec.points else measure
    return words if spec.points == "dB" else words[0].upper() + words[1:]


def _tested(pairs: Sequence[dict[str, Any]]) -> str:
    """What the verdicts on differences rest on."""
    seeds = max(pair["seeds"] for pair in pairs)
    if seeds > 1:
        return f"paired t-tests over {seeds} seeds at {100 - 100 * THRESHOLDS.level:.0f} %, Holm's correction"
    if all(pair["low"] is None for pair in pairs):
        return "one seed, no intervals: nothing is told apart"
    return f"one seed, {LEVEL} intervals, each comparison alone"


def _signed(pair: dict[str, Any], spec: ScoreSpec) -> str:
    spread = "" if pair["std"] is None else f" ± {spec.text(pair['std'])}"
    return spec.text(pair["mean"], signed=True) + spread


def _gap(pair: dict[str, Any], spec: ScoreSpec) -> str:
    return f"{WAYS.get(pair['second'], pair['second'])} ({_signed(pair, spec)})"


def _on_score(row: RowDict, zoo: RowDict, spec: ScoreSpec) -> str:
    mean, reference = row["values"]["mean"], zoo["values"]["mean"]
    if mean is None or reference is None:
        return _no_mean(row, "the zoo", spec)
    gap = mean - reference
    beside = (
        "equal to" if spec.full(mean) == spec.full(reference) else f"{spec.gap(gap)} {'above' if gap > 0 else 'below'}"
    )
    inside = ", inside the zoo's own spread" if abs(gap) <= (zoo["values"]["std"] or 0) else ""
    selected = row["values"]["selected"]
    best = "" if selected is None else f"; the one best on train has {spec.full(selected)}"
    direction = "" if spec.higher_is_better else " (lower is better)"
    return f"{_own_mean(row, spec)}, {beside} the zoo's {spec.full(reference)}{direction}{inside}{best}."


def _own_mean(row: RowDict, spec: ScoreSpec) -> str:
    networks = "Its network has" if row["n"] == 1 else f"Its {row['n']} networks have"
    return f"{networks} a mean {spec.name} of {spec.full(row['values']['mean'])}"


def _no_mean(row: RowDict, other: str, spec: ScoreSpec) -> str:
    """That a row, or else the other one that it would be compared with, has no mean."""
    if row["values"]["mean"] is None:
        return f"The mean {spec.name} of its {counted(row['n'], 'network')} is not finite."
    return f"{_own_mean(row, spec)}; that of {other} is not finite."


def _on_distance(row: RowDict, results: ResultsDict, flags: Sequence[Flag]) -> list[str]:
    kinds = {flag.kind for flag in flags}
    several = results["checkpoints"] > 1
    copies = "it is a copy with small changes" if row["n"] == 1 else "they are copies with small changes"
    lie = "It lies" if row["n"] == 1 else "They lie"
    if row["values"]["run_ratio"] is None:
        distance = f"{lie} {_steps(row)} from the nearest training network"
        sentences = [f"{distance}: {copies}." if "copies" in kinds else f"{distance}."]
    else:
        fresh = "a held-out run" if results["run_scale"]["basis"] == "held-out runs" else "another training run"
        steps = f" ({_steps(row)})" if several else ""
        meaning = _meaning(row["values"]["run_ratio"], several, results["runs"], fresh)
        meaning = copies if "copies" in kinds else meaning
        sentences = [f"{lie} at {row['values']['run_ratio']:.2f} of the distance of {fresh}{steps}: {meaning}."]
    values = row["values"]
    if "nearer_than_heldout" in kinds and values["run_ratio"] >= THRESHOLDS.nearer:
        sentences.append(
            f"Yet more of them than chance explains are nearer than held-out runs (zu {metric('zu').text(row)})."
        )
    aligned = values["nn_ratio_aligned"] if values["run_ratio"] is None else values["run_ratio_aligned"]
    if aligned is not None:
        copied = ": copies" if "copies_aligned" in kinds else ""
        within = ": within the runs it learnt from" if "within_run_aligned" in kinds else ""
        sentences.append(f"After alignment {lie.lower()} at {aligned:.2f}{copied or within}.")
    sentences += [f"{flag.detail} networks {COUNTED[flag.kind]}." for flag in flags if flag.kind in COUNTED]
    noisy = score_of_noise(row["values"]["nn_ratio"], results["rows"])
    if noisy is not None:
        spec = ScoreSpec.from_dict(results["score"])
        sentences.append(
            f"Training networks with white noise that far away have a mean {spec.name} of {spec.full(noisy)}."
        )
    return sentences


def _steps(row: RowDict) -> str:
    return f"{row['values']['nn_ratio']:.3g} steps between neighbouring checkpoints"


def _meaning(ratio: float, several: bool, runs: int, fresh: str) -> str:
    if several and ratio < THRESHOLDS.within_run:
        return f"within the run{'s' if runs > 1 else ''} that the generator learnt from"
    if ratio < THRESHOLDS.nearer:
        return f"nearer to a training network than {fresh} is"
    if ratio < THRESHOLDS.farther:
        return f"as far from the training networks as {fresh}"
    return f"farther from the training networks than {fresh}"


def _on_spread(row: RowDict, results: ResultsDict, flags: Sequence[Flag]) -> str:
    kinds, sentence = {flag.kind for flag in flags}, f"Dispersion {row['values']['dispersion']:.2f}: "
    sentence += (
        "the generator has collapsed towards one network, whatever its score"
        if "collapsed" in kinds
        else "narrower than the zoo"
        if "narrow" in kinds
        else "more varied than the zoo"
        if row["values"]["dispersion"] > THRESHOLDS.wide
        else "about as varied as the zoo"
    )
    if "mean_plus_noise" not in kinds:
        return sentence + "."
    subspace, inside = results["subspace"], row["values"]["variance_inside"]
    return (
        f"{sentence}, but without its structure: {100 * inside:.1f} % of the variance lies in the subspace that holds "
        f"{100 * results['thresholds']['subspace']:.0f} % of the zoo's, against {100 * subspace['share']:.0f} % of {subspace['basis']}. "
        "They are a mean with independent noise on each weight, as the baseline gaussian draws them."
    )


def _on_baselines(flags: Sequence[Flag], spec: ScoreSpec) -> list[str]:
    worse, alike = details(flags, "worse"), details(flags, "alike")
    clauses = [
        *([f"{_listed(worse)} {_are(worse)} better in {spec.name}"] if worse else []),
        *([f"{_listed(alike)} cannot be told apart from it in {spec.name}"] if alike else []),
    ]
    if not clauses:
        return []
    nearer = "none of them is nearer" if len(worse) + len(alike) > 1 else "is not nearer"
    return [
        f"At the {LEVEL} level {' and '.join(clauses)}, and {nearer} to the zoo: here the generator has no advantage over simpler methods."
    ]


def _on_storage(name: str, results: ResultsDict) -> list[str]:
    """What storing the generator takes, in networks."""
    stored = results["generators"].get(name, {}).get("generator_bytes")
    if stored is None:
        return []
    network = 4 * results["params"]  # float32
    return [
        f"Stored, it takes {size_text(stored)}, as much as {counted(ceil(stored / network), 'network')} of {size_text(network)}; "
        f"it learned from {results['networks']:,}."
    ]


def _on_unseen_tasks(row: RowDict, rows: Sequence[RowDict], spec: ScoreSpec) -> list[str]:
    """The same for a generator of networks for unseen tasks; direct training is the first row."""
    unseen, mean, direct = row["tasks"]["unseen"], row["values"]["mean"], rows[0]["values"]["mean"]
    if mean is None or direct is None:
        return [_no_mean(row, "training on these tasks themselves", spec)]
    worst = min(unseen, key=lambda task: spec.sign * unseen[task])
    side = "above" if mean > direct else "below"
    tasks = counted(len(unseen), "unseen task")
    sentences = [
        f"On {tasks} its networks have a mean {spec.name} of {spec.full(mean)}, {spec.gap(mean - direct)} {side} training on "
        f"these tasks themselves; on the worst, {worst}, {spec.full(unseen[worst])}."
    ]
    by_verdict: dict[str, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
    simple = {other["name"] for other in rows[1:] if other["kind"] != "generator"}
    for pair in row["against"]:
        if pair["name"] in simple and pair["score"]["difference"] is not None:
            gap_to = spec.text(pair["score"]["difference"], signed=True)
            by_verdict[pair["verdict"]].append(f"{WAYS.get(pair['name'], pair['name'])} ({gap_to})")
    clauses = [
        f"{PHRASES[verdict]} {_listed(by_verdict[verdict])}" for verdict in get_args(Verdict) if by_verdict[verdict]
    ]
    if clauses:
        sentences.append(f"At the {LEVEL} level, paired over the tasks, it {'; '.join(clauses)}.")
    return sentences


def score_of_noise(ratio: float, rows: Sequence[RowDict]) -> float | None:
    """Mean score of noised copies at a distance, between the two nearest of the noise sweep; None beyond it.

    Args:
        ratio: nn_ratio to look at.
        rows: All rows.
    """
    noised = [(row["values"]["nn_ratio"], row["values"]["mean"]) for row in rows if row["noise"] is not None]
    sweep = sorted((at, score) for at, score in noised if at and score is not None)
    for (near, score_near), (far, score_far) in pairwise(sweep):
        if near <= ratio <= far:
            share = log(ratio / near) / log(far / near) if far > near else 0.0
            return float(score_near + share * (score_far - score_near))
    return None


def _counted(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_LISTED else f"{len(names)} other rows"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
