"""``paramgen flips``: does a generator respond to flipped bits of a seen code (RPG, arXiv:2501.11587, Table 10)?

N: networks. K: classes of the image set, bits of a code. M: images. P: generated parameters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.core.command_line import command_line
from paramgen.core.io import plain_values, write_json
from paramgen.core.params import StateDict
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.condition_baselines import nearest_task, ridge
from paramgen.evaluation.pool import seen_tasks
from paramgen.generators.loading import load_conditional
from paramgen.tasks import RelabelFamily, family_of, load_family
from paramgen.tasks.conditions import load_encoder
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.vision.relabel import flipped

LABEL_CHANGES = ("none", "one bit", "all bits")


class Change(NamedTuple):
    """A seen code and what it becomes.

    Args:
        kind: One of :data:`LABEL_CHANGES`.
        seen: The code of a seen task.
        code: The code that networks are requested for.
        bit: The bit that was flipped, where it is one.
    """

    kind: str
    seen: str
    code: str
    bit: int | None = None


def main(
    zoo: str,
    ckpt_path: list[str] | None = None,
    codes: int = 20,
    per_code: int = 5,
    split: Literal["val", "test"] = "test",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    out: str = "runs/flips",
    trust: bool = False,
) -> None:
    """Flip one bit, or all bits, of seen codes and score generated networks on the new codes, class by class.

    Args:
        zoo: Zoo of relabelings, from `paramgen collect_tasks --config digits_relabel`.
        ckpt_path: Checkpoints of generators fitted on this zoo.
        codes: Number of seen codes with an unseen inverse. Of each, all bits are flipped, and each single bit that gives an unseen code.
        per_code: Networks sampled per code.
        split: Split to score on.
        scheduler: Solver. Default: the generator's own.
        num_inference_steps: Solver steps. Default: the generator's own.
        seed: Seed of the samples.
        out: Output folder for flips.json.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: Numbers below 1, a zoo of tasks other than relabelings, a generator without conditions or of another zoo.
    """
    command = command_line("paramgen flips", main, locals())
    require_positive(codes=codes, per_code=per_code)
    opened = Zoo(zoo, trust)
    family = family_of(opened)
    if not isinstance(family, RelabelFamily):
        raise ParamgenError(
            f"zoo {opened.name!r} holds networks of a {type(family).__name__}; only codes of a RelabelFamily have bits to flip"
        )
    models = {path: load_conditional(path, opened) for path in ckpt_path or []}
    requested = changes(family.seen, codes)
    if not requested:
        raise ParamgenError(f"zoo {opened.name!r} has no seen code whose inverse is unseen")
    condition = _conditions(opened, family, requested)
    seen = seen_tasks(opened)
    own = seen.weights[[seen.names.index(change.seen) for change in requested]]
    simple = {"unchanged": own, "nearest": nearest_task(seen, condition), "ridge": ridge(seen, condition)}
    rows = {
        name: _by_class(opened, family, [opened.spec.unflatten(row) for row in weights], requested, split)
        for name, weights in simple.items()
    }
    for path, model in models.items():
        draw = torch.Generator().manual_seed(seed)
        solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
        conditions = condition.repeat_interleave(per_code, 0)
        networks = model.sample(len(requested) * per_code, conditions, generator=draw, **solver)
        name = type(model).__name__ + "*" * model.uses_task_data
        rows[f"{name} ({path})" if name in rows else name] = _by_class(opened, family, networks, requested, split)
    values = {"zoo": opened.name, "score": family.score.to_dict(), **_summary(requested, rows)}
    values |= {"split": split, "networks": per_code, "command": command}
    write_json(Path(out) / "flips.json", plain_values(values))
    console = Console()
    console.print(_table(values))
    console.print(f"wrote {Path(out) / 'flips.json'}", style="dim", soft_wrap=True)


def changes(seen: Sequence[str], most: int) -> list[Change]:
    """The first codes whose inverse is unseen: unchanged, with each single flip that gives an unseen code, and with all bits flipped."""
    seen_codes, requested = set(seen), []
    for code in [code for code in seen if flipped(code) not in seen_codes][:most]:
        requested.append(Change("none", code, code))
        for bit in range(len(code)):
            other = code[:bit] + flipped(code[bit]) + code[bit + 1 :]
            if other not in seen_codes and len(set(other)) == 2:
                requested.append(Change("one bit", code, other, bit))
        requested.append(Change("all bits", code, flipped(code)))
    return requested


def _conditions(zoo: Zoo, family: RelabelFamily, requested: Sequence[Change]) -> Tensor:
    """Conditions (N, C), made as the zoo's were."""
    encoder = load_encoder(zoo.meta["condition"], zoo.trusted, f"zoo {zoo.name!r}")
    new = sorted({change.code for change in requested} - set(family.seen))
    config = family.config()
    wider = load_family(
        {**config, "init_args": {**config["init_args"], "seen": family.seen, "unseen": new}}, zoo.trusted
    )
    return torch.stack([encoder.encode(wider.describe(change.code)) for change in requested])


class _Scored(NamedTuple):
    """Scores of the networks for each change, mean over them.

    Args:
        whole: (N,) on all images.
        by_class: (N, K) on the images of each class.
    """

    whole: Tensor
    by_class: Tensor


def _by_class(
    zoo: Zoo, family: RelabelFamily, networks: Sequence[StateDict], requested: Sequence[Change], split: str
) -> _Scored:
    """Scores of n networks for each of N changes, N * n in all, on their new codes."""
    labels = family.base.data(split).targets  # (M,), in 0 to K - 1
    images = family.task(family.seen[0]).data(split)  # those of every code
    n = len(networks) // len(requested)
    targets = [family.bits(change.code)[labels] for change in requested for _ in range(n)]  # N * n times (M,)
    states = [zoo.complete(state) for state in networks]
    items = score_networks(family, family.build(), states, images, targets=targets).items
    assert items is not None  # the score is made of single images
    columns = [family.value(items), *(family.value(items[:, labels == k]) for k in labels.unique().tolist())]
    overall, *classes = (column.view(len(requested), n).mean(1) for column in columns)
    return _Scored(overall, torch.stack(classes, 1))


def _summary(requested: Sequence[Change], rows: dict[str, _Scored]) -> dict[str, Any]:
    of = {kind: torch.tensor([change.kind == kind for change in requested]) for kind in LABEL_CHANGES}
    bits = torch.tensor([change.bit for change in requested if change.bit is not None], dtype=torch.int64)
    summary = []
    for name, scores in rows.items():
        one = scores.by_class[of["one bit"]]
        turned = torch.zeros_like(one, dtype=torch.bool).scatter_(1, bits[:, None], value=True)
        row: dict[str, Any] = {"name": name, "by_class": scores.by_class.tolist()}
        row |= {kind: float(scores.whole[changed].mean()) for kind, changed in of.items()}
        summary.append({**row, "turned": float(one[turned].mean()), "others": float(one[~turned].mean())})
    return {"changes": [change._asdict() for change in requested], "rows": summary}


def _table(values: dict[str, Any]) -> Table:
    score = ScoreSpec.from_dict(values["score"])
    table = Table("", "as seen", "one bit", "flipped class", "other classes", "all bits", box=None)
    counts = ", ".join(f"{sum(c['kind'] == kind for c in values['changes'])} {kind}" for kind in LABEL_CHANGES[1:])
    better = "" if score.higher_is_better else " (lower is better)"
    table.caption = f"{values['split']} {score.label}{better} on the new code; flipped: {counts}"
    for row in values["rows"]:
        cells = (row[key] for key in ("none", "one bit", "turned", "others", "all bits"))
        table.add_row(row["name"], *(score.text(cell) for cell in cells))
    return table
