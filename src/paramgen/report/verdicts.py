"""What figures mean, in sentences: of a generator's row, of generators over seeds. They say what the thresholds and the tests say."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, log
from typing import Any, get_args

from paramgen.evaluation.compare import starred
from paramgen.evaluation.flags import Flag, FlagKind, details, parse
from paramgen.evaluation.intervals import Verdict
from paramgen.evaluation.thresholds import THRESHOLDS

Results = dict[str, Any]
RowDict = dict[str, Any]

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
    "random-init": "fresh weights",
    "nearest-noised": "a noised copy of the nearest task",
}
PHRASES: Mapping[Verdict, str] = {
    "better": "is better than",
    "alike": "cannot be told apart from",
    "worse": "is worse than",
}
COUNTED: Mapping[FlagKind, str] = {  # flags whose detail counts networks
    "some_near": "are nearer to a training network than new runs",
    "some_near_aligned": "are nearer to a training network than new runs, up to permutation and scale",
    "same_predictions": "predict as one training network does on every test image",
}
MOST_LISTED = 8  # rows; more are counted


def verdict(row: RowDict, results: Results) -> list[str]:
    """What a generator's figures mean, in sentences.

    Args:
        row: The generator's row.
        results: All of it; the zoo's row comes first.
    """
    flags = parse(row["flags"])
    if row.get("tasks"):
        sentences = _on_unseen_tasks(row, results["rows"])
        saw = "It was trained on the data of seen tasks, which the ways that need no generator were not."
    else:
        sentences = [_on_accuracy(row, results["rows"][0])]
        if row["nn_ratio"] is not None:
            sentences += _on_distance(row, results, flags)
        if row["dispersion"] is not None:
            sentences.append(_on_spread(row, results, flags))
        sentences += _on_baselines(flags)
        saw = "It saw the task's data while it was trained, which the other rows did not."
    if row["nonfinite"]:
        sentences.append(f"{row['nonfinite']} of its {row['n']} networks hold NaN or inf.")
    if row["uses_task_data"]:
        sentences.append(saw)
    return sentences + _on_storage(row["name"], results)


def over_seeds(zoo: str, comparison: dict[str, Any]) -> list[str]:
    """What each generator of a zoo does beside all that is none, in mean accuracy: a sentence each.

    Args:
        zoo: Which.
        comparison: As ``comparison.json`` holds it.
    """
    rows = [row for row in comparison["summary"] if row["zoo"] == zoo]
    generators = {row["name"]: row for row in rows if row["kind"] == "generator"}
    pairs = [pair for pair in comparison["differences"] if pair["zoo"] == zoo and pair["second"] not in generators]
    said = []
    for name, row in generators.items():
        mine = [pair for pair in pairs if pair["first"] == name]
        judged = {verdict: [_gap(pair) for pair in mine if pair["verdict"] == verdict] for verdict in get_args(Verdict)}
        clauses = "; ".join(f"{PHRASES[verdict]} {_counted(others)}" for verdict, others in judged.items() if others)
        if clauses:
            measure = "accuracy on unseen tasks" if "worst" in row["figures"] else "mean accuracy"
            said.append(f"{starred(row)} {clauses}. Points of {measure}; {_tested(mine)}.")
    return said


def between(pair: dict[str, Any]) -> str:
    """The difference of two generators, in a sentence.

    Args:
        pair: Of the differences of ``comparison.json``.
    """
    gap = f"{100 * pair['mean']:+.1f}".replace("-", "−")
    said = f"{pair['first']} less {pair['second']}: {gap}"
    if pair["std"] is not None:
        said += f" ± {100 * pair['std']:.1f}"
    judged = "cannot be told apart" if pair["verdict"] == "alike" else "told apart"
    return f"{said} points in mean accuracy: {judged}; {_tested([pair])}."


def _tested(pairs: Sequence[dict[str, Any]]) -> str:
    """What the verdicts on differences rest on."""
    seeds = max(pair["seeds"] for pair in pairs)
    if seeds > 1:
        return f"paired t-tests over {seeds} seeds at {100 - 100 * THRESHOLDS.level:.0f} %, Holm's correction"
    if all(pair["low"] is None for pair in pairs):
        return "one seed, no intervals: nothing is told apart"
    return f"one seed, {LEVEL} intervals, each comparison alone"


def _gap(pair: dict[str, Any]) -> str:
    spread = "" if pair["std"] is None else f" ± {100 * pair['std']:.1f}"
    gap = f"{100 * pair['mean']:+.1f}{spread}".replace("-", "−")
    return f"{WAYS.get(pair['second'], pair['second'])} ({gap})"


def _on_accuracy(row: RowDict, zoo: RowDict) -> str:
    mean, reference = row["accuracy"]["mean"], zoo["accuracy"]["mean"]
    gap = 100 * (mean - reference)
    spread = 100 * (zoo["accuracy"]["std"] or 0)
    side = "above" if gap >= 0 else "below"
    inside = ", inside the zoo's own spread" if abs(gap) <= spread else ""
    selected = row["accuracy"]["selected"]
    best = "" if selected is None else f"; the one best on train has {100 * selected:.1f} %"
    return (
        f"Its {row['n']} networks average {100 * mean:.1f} %, {abs(gap):.1f} points {side} the zoo's {100 * reference:.1f} %"
        f"{inside}{best}."
    )


def _on_distance(row: RowDict, results: Results, flags: Sequence[Flag]) -> list[str]:
    kinds = {flag.kind for flag in flags}
    several = results["checkpoints"] > 1
    if row["run_ratio"] is None:
        said = f"They lie {_steps(row)} from the nearest training network"
        sentences = [f"{said}: they are copies with small changes." if "copies" in kinds else f"{said}."]
    else:
        fresh = "a held-out run" if results["run_scale"]["basis"] == "held-out runs" else "another training run"
        steps = f" ({_steps(row)})" if several else ""
        meaning = _meaning(row["run_ratio"], several, results["runs"], fresh)
        meaning = "they are copies with small changes" if "copies" in kinds else meaning
        sentences = [f"They lie at {row['run_ratio']:.2f} of the distance of {fresh}{steps}: {meaning}."]
    aligned = row["nn_ratio_aligned"] if row["run_ratio"] is None else row["run_ratio_aligned"]
    if aligned is not None:
        copied = ": copies" if "copies_aligned" in kinds else ""
        within = ": within the runs it learnt from" if "within_run_aligned" in kinds else ""
        sentences.append(f"Up to permutation and scale they lie at {aligned:.2f}{copied or within}.")
    sentences += [f"{flag.detail} networks {COUNTED[flag.kind]}." for flag in flags if flag.kind in COUNTED]
    noisy = accuracy_of_noise(row["nn_ratio"], results["rows"])
    if noisy is not None:
        sentences.append(f"Training networks with white noise that far away average {100 * noisy:.1f} %.")
    return sentences


def _steps(row: RowDict) -> str:
    return f"{row['nn_ratio']:.3g} steps between neighbouring checkpoints"


def _meaning(ratio: float, several: bool, runs: int, fresh: str) -> str:
    if several and ratio < THRESHOLDS.within_run:
        return f"they stay within the run{'s' if runs > 1 else ''} that it learnt from"
    if ratio < THRESHOLDS.nearer:
        return f"nearer to a training network than {fresh} is"
    if ratio < THRESHOLDS.farther:
        return f"as far from the training networks as {fresh}"
    return f"farther from the training networks than {fresh}"


def _on_spread(row: RowDict, results: Results, flags: Sequence[Flag]) -> str:
    kinds, said = {flag.kind for flag in flags}, f"Dispersion {row['dispersion']:.2f}: "
    said += (
        "the generator has collapsed towards one network, whatever its accuracy"
        if "collapsed" in kinds
        else "narrower than the zoo"
        if "narrow" in kinds
        else "as varied as the zoo, or more"
    )
    if "mean_plus_noise" not in kinds:
        return said + "."
    subspace = results["subspace"]
    return (
        f"{said}, but without its structure: {100 * row['variance_inside']:.1f} % of the variance lies in the subspace that holds "
        f"{100 * results['thresholds']['subspace']:.0f} % of the zoo's, against {100 * subspace['share']:.0f} % of {subspace['basis']}. "
        "They are a mean with independent noise on each weight, as the baseline gaussian draws them."
    )


def _on_baselines(flags: Sequence[Flag]) -> list[str]:
    worse, alike = details(flags, "worse"), details(flags, "alike")
    clauses = [
        *([f"{_listed(worse)} {_are(worse)} more accurate"] if worse else []),
        *([f"{_listed(alike)} cannot be told apart from it in accuracy"] if alike else []),
    ]
    if not clauses:
        return []
    several = len(worse) + len(alike) > 1
    return [
        f"At the {LEVEL} level {' and '.join(clauses)}, and {'none of them is' if several else 'it is not'} nearer to the zoo: here the "
        "generator shows nothing that simpler means do not."
    ]


def _on_storage(name: str, results: Results) -> list[str]:
    """What storing the generator takes, in networks."""
    stored = results["generators"].get(name, {}).get("generator_bytes")
    if stored is None:
        return []
    network = 4 * results["params"]  # float32
    return [
        f"Stored, it takes {stored / 1e6:,.3g} MB, as much as {ceil(stored / network):,} networks of {network / 1e3:,.3g} kB; "
        f"it learned from {results['networks']:,}."
    ]


def _on_unseen_tasks(row: RowDict, rows: Sequence[RowDict]) -> list[str]:
    """The same for a generator of networks for unseen tasks; direct training is the first row."""
    unseen, mean = row["tasks"]["unseen"], row["accuracy"]["mean"]
    direct = rows[0]["accuracy"]["mean"]
    worst = min(unseen, key=unseen.__getitem__)
    side = "above" if mean > direct else "below"
    sentences = [
        f"On {len(unseen)} unseen tasks its networks average {100 * mean:.1f} %, {100 * abs(mean - direct):.1f} points {side} training "
        f"on these tasks themselves; on the worst, {worst}, {100 * unseen[worst]:.1f} %."
    ]
    ways: dict[str, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
    simple = {other["name"] for other in rows[1:] if other["kind"] != "generator"}
    for pair in row["against"]:
        if pair["name"] in simple:
            gap = f"{100 * pair['accuracy']['difference']:+.1f}".replace("-", "−")
            ways[pair["verdict"]].append(f"{WAYS.get(pair['name'], pair['name'])} ({gap})")
    clauses = [f"{PHRASES[verdict]} {_listed(ways[verdict])}" for verdict in get_args(Verdict) if ways[verdict]]
    if clauses:
        sentences.append(f"At the {LEVEL} level, paired over the tasks, it {'; '.join(clauses)}.")
    return sentences


def accuracy_of_noise(ratio: float, rows: list[RowDict]) -> float | None:
    """Mean accuracy of noised copies at a distance, between the two nearest of the noise sweep; None beyond it.

    Args:
        ratio: nn_ratio to look at.
        rows: All rows.
    """
    sweep = sorted(
        (r["nn_ratio"], r["accuracy"]["mean"]) for r in rows if r["name"].startswith("noise-") and r["nn_ratio"]
    )
    for (near, there), (far, beyond) in pairwise(sweep):
        if near <= ratio <= far:
            share = log(ratio / near) / log(far / near) if far > near else 0.0
            accuracy: float = there + share * (beyond - there)
            return accuracy
    return None


def _counted(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_LISTED else f"{len(names)} other rows"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
