"""What each measure of an evaluation sees of planted copies: p % copies of training networks among networks of runs that no one has seen.

    OMP_NUM_THREADS=1 python benchmarks/planted_copies.py

Two zoos of an MLP on scikit-learn's digits: 100 seeds with one checkpoint each, and 20 seeds with ten. A mix is 100 networks: networks of
runs that neither the zoo nor the held-out reference has, and p % copies. A measure detects a mix that lies outside the central 95 % of the
mixes without copies. Its power is the share of mixes that it detects.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from paramgen.collect.train import OptimSettings
from paramgen.core.seeds import generator
from paramgen.evaluation.compare import machine
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report.png import COLOURS, GREY, INK, STYLE
from paramgen.tasks import ClassificationTask
from planted_measures import Bench, Measure
from planting import COPIES, Planted, Recipe, make

ROOT = Path(__file__).resolve().parents[1]
N = 100  # networks of a mix
SHARES = (1, 2, 5, 10, 20, 50, 100)  # p
SOURCES = 100  # copies of each kind to draw from
NULLS = 200  # mixes without copies
MIXES = 25  # of each kind and share
POWER = 0.8
RECIPES = {
    "one": Recipe("100 runs of one checkpoint", 100, 1, 20, OptimSettings("adam", lr=0.01, schedule="one_cycle")),
    "ten": Recipe("20 runs of ten checkpoints", 20, 10, 30, OptimSettings("adam", lr=0.004)),
}
DRAWN: Mapping[str, dict[str, Any]] = {  # in colour, as lines of matplotlib
    "run_ratio": {"color": COLOURS[0]},
    "run_ratio_aligned": {"color": COLOURS[1], "linestyle": "--"},
    "iou_wrong_max": {"color": COLOURS[2], "linestyle": ":"},
    "AuthPct": {"color": COLOURS[3]},
    "near_share_aligned": {"color": COLOURS[4], "linewidth": 6, "alpha": 0.35},  # the next one lies on it
    "same_predictions": {"color": INK, "linestyle": "--"},
}


class Mixer:
    """Draws mixes of candidates: first the honest networks, then the copies of each kind.

    Args:
        zoo: The networks of a study.
        kinds: Names of :data:`COPIES`.
        seed: Of the copies.
    """

    def __init__(self, zoo: Planted, kinds: Sequence[str], seed: int = 0) -> None:
        draws = generator(seed, 0)
        chosen = torch.randperm(len(zoo.weights), generator=draws)[:SOURCES]
        parts = [zoo.honest] + [COPIES[kind](zoo, chosen, draws) for kind in kinds]
        starts = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.candidates = torch.cat(parts)  # (T, P)
        self.honest = len(zoo.honest)
        self.first = dict(zip(kinds, starts.tolist(), strict=False))
        self.sources = len(chosen)

    def draw(self, kind: str, copies: int, draws: Generator) -> Tensor:
        """Indices (N,) of a mix: honest networks without replacement, copies with."""
        honest = torch.randperm(self.honest, generator=draws)[: N - copies]
        return torch.cat([honest, self.first[kind] + torch.randint(self.sources, (copies,), generator=draws)])


def values(measures: Mapping[str, Measure], mixes: Sequence[Tensor]) -> dict[str, Tensor]:
    """Every measure of every mix, nan as −1: a figure that appears where there was none is seen."""
    return {
        name: torch.tensor([measure.of(mix) for mix in mixes], dtype=torch.float64).nan_to_num(nan=-1)
        for name, measure in measures.items()
    }


def detected(null: Tensor, found: Tensor) -> float:
    """Share of `found` outside the central 95 % of `null`."""
    tail = (1 - THRESHOLDS.level) / 2
    low, high = null.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return ((found < low) | (found > high)).double().mean().item()


def study(
    task: ClassificationTask,
    zoo: Planted,
    kinds: Sequence[str] = tuple(COPIES),
    shares: Sequence[int] = SHARES,
    mixes: int = MIXES,
    nulls: int = NULLS,
) -> dict[str, Any]:
    """Power of every measure, by kind of copy and share; false alarms on mixes without copies that set no limits.

    Args:
        task: The zoo's task.
        zoo: Its networks.
        kinds: Names of :data:`COPIES`.
        shares: Of copies, in percent.
        mixes: How many of each kind and share.
        nulls: How many without copies set the limits; as many are counted as false alarms.
    """
    mixer = Mixer(zoo, kinds)
    measures = Bench(task, zoo, mixer.candidates).measures()
    draws = generator(0, 1)
    null = values(measures, [mixer.draw(kinds[0], 0, draws) for _ in range(nulls)])
    fresh = values(measures, [mixer.draw(kinds[0], 0, draws) for _ in range(nulls)])
    power: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for kind in kinds:
        by_share = [values(measures, [mixer.draw(kind, p * N // 100, draws) for _ in range(mixes)]) for p in shares]
        for name in measures:
            power[name][kind] = [round(detected(null[name], found[name]), 4) for found in by_share]
    limits = torch.tensor([(1 - THRESHOLDS.level) / 2, 0.5, (1 + THRESHOLDS.level) / 2], dtype=torch.float64)
    return {
        name: {
            "reported": measure.reported,
            "without_copies": [round(x, 6) for x in null[name].quantile(limits).tolist()],
            "false_alarms": round(detected(null[name], fresh[name]), 4),
            "power": power[name],
        }
        for name, measure in measures.items()
    }


def smallest(power: Sequence[float]) -> str:
    """The smallest share in percent from which every power is at least :data:`POWER`; a dash where there is none."""
    for i, p in enumerate(SHARES):
        if min(power[i:]) >= POWER:
            return str(p)
    return "–"


def table(found: Mapping[str, Any]) -> str:
    """Markdown: the smallest share that each measure detects, by kind of copy, in the one zoo / the other."""
    zoos = list(found["zoos"].values())
    head = f"| measure | {' | '.join(COPIES)} | false alarms |"
    lines = [head, "| --- |" + " ---: |" * (len(COPIES) + 1)]
    for name, measure in zoos[0].items():
        cells = []
        for kind in COPIES:
            both = [smallest(zoo[name]["power"][kind]) for zoo in zoos]
            cells.append(both[0] if len(set(both)) == 1 else " / ".join(both))
        alarms = " / ".join(f"{100 * zoo[name]['false_alarms']:.0f} %" for zoo in zoos)
        shown = f"`{name}`" if measure["reported"] and " " not in name else name
        lines.append(f"| {shown} | {' | '.join(cells)} | {alarms} |")
    return "\n".join(lines)


def picture(found: Mapping[str, Any]) -> Figure:
    """Power against the share of copies: one small picture a kind of copy and zoo, one line a measure."""
    titles = {key: recipe.title for key, recipe in RECIPES.items()}
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(len(found["zoos"]), len(COPIES), sharex=True, sharey=True)
    for row, (key, zoo) in zip(axes, found["zoos"].items(), strict=True):
        for ax, kind in zip(row, COPIES, strict=True):
            for name in [*(n for n in zoo if n not in DRAWN), *DRAWN]:
                line = (
                    {"linewidth": 1.6, **DRAWN[name]}
                    if name in DRAWN
                    else {"color": GREY, "linewidth": 0.6, "alpha": 0.6}
                )
                ax.plot(range(len(SHARES)), zoo[name]["power"][kind], label=name, **line)
            ax.set_xticks(range(len(SHARES)), [str(p) for p in SHARES])
            ax.set_ylim(-0.03, 1.03)
        row[0].set_ylabel(f"{titles.get(key, key)}\npower")
    for ax, kind in zip(axes[0], COPIES, strict=True):
        ax.set_title(f"{kind} copies", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("copies, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    shown = [handles[labels.index(name)] for name in DRAWN] + [handles[0]]
    figure.legend(shown, [*DRAWN, "all other measures"], loc="outside lower center", ncols=4, frameon=False)
    return figure


def as_json(found: Mapping[str, Any]) -> str:
    """One line a measure."""
    zoos = {
        key: "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in zoo.items()) + "\n }"
        for key, zoo in found["zoos"].items()
    }
    head = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items() if key != "zoos"]
    body = ' "zoos": {\n' + ",\n".join(f" {json.dumps(key)}: {zoo}" for key, zoo in zoos.items()) + "\n }"
    return "{\n" + ",\n".join([*head, body]) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "planted_copies.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "planted_copies.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    task, start = ClassificationTask("digits", "mlp"), time.process_time()
    zoos = {}
    for key, recipe in RECIPES.items():
        zoos[key] = study(task, make(task, recipe))
        print(f"{recipe.title}: {time.process_time() - start:.0f} CPU s", flush=True)
    found = {"machine": machine(), "cpu_s": round(time.process_time() - start), "shares": SHARES, "zoos": zoos}
    args.out.write_text(as_json(found))
    with mpl.rc_context(STYLE):
        picture(found).savefig(args.picture, dpi=100, pil_kwargs={"optimize": True})
    print(table(found))


if __name__ == "__main__":
    main()
