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
from paramgen.core.io import write_json
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.unseen import nearest, ridge, seen_tasks
from paramgen.generators.base import load_conditional
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
        code: The code that networks are asked for.
        bit: The bit that was turned, where it is one.
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
    found = Zoo(zoo, trust)
    family = family_of(found)
    if not isinstance(family, RelabelFamily):
        raise ParamgenError(
            f"zoo {found.name!r} holds networks of a {type(family).__name__}; only codes of a RelabelFamily have bits to turn"
        )
    models = {path: load_conditional(path, found) for path in ckpt_path or []}
    asked = changes(family.seen, codes)
    if not asked:
        raise ParamgenError(f"zoo {found.name!r} has the inverse of every seen code among its seen codes")
    condition = _conditions(found, family, asked)
    seen = seen_tasks(found)
    own = seen.weights[[seen.names.index(change.seen) for change in asked]]
    simple = {"unchanged": own, "nearest": nearest(seen, condition), "ridge": ridge(seen, condition)}
    rows = {
        name: _by_class(found, family, [found.spec.unflatten(row) for row in weights], asked, split)
        for name, weights in simple.items()
    }
    for path, model in models.items():
        draw = torch.Generator().manual_seed(seed)
        solver = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
        networks = model.sample(
            len(asked) * per_code, condition.repeat_interleave(per_code, 0), generator=draw, **solver
        )
        name = type(model).__name__ + "*" * model.uses_task_data
        rows[f"{name} ({path})" if name in rows else name] = _by_class(found, family, networks, asked, split)
    values = _summary(found, asked, rows, family.base.data(split).targets)
    values |= {"split": split, "networks": per_code, "command": command}
    write_json(Path(out) / "flips.json", values)
    console = Console()
    console.print(_table(values))
    console.print(f"wrote {Path(out) / 'flips.json'}", style="dim", soft_wrap=True)


def changes(seen: Sequence[str], most: int) -> list[Change]:
    """The first codes whose inverse is unseen: unchanged, with each single flip that gives an unseen code, and with all bits flipped."""
    known, found = set(seen), []
    for code in [code for code in seen if flipped(code) not in known][:most]:
        found.append(Change("none", code, code))
        for bit in range(len(code)):
            other = code[:bit] + flipped(code[bit]) + code[bit + 1 :]
            if other not in known and len(set(other)) == 2:
                found.append(Change("one bit", code, other, bit))
        found.append(Change("all bits", code, flipped(code)))
    return found


def _conditions(zoo: Zoo, family: RelabelFamily, asked: Sequence[Change]) -> Tensor:
    """Conditions (N, C), made as the zoo's were."""
    encoder = load_encoder(zoo.meta["condition"], zoo.trusted, f"zoo {zoo.name!r}")
    new = sorted({change.code for change in asked} - set(family.seen))
    config = family.config()
    wider = load_family(
        {**config, "init_args": {**config["init_args"], "seen": family.seen, "unseen": new}}, zoo.trusted
    )
    return torch.stack([encoder.encode(wider.describe(change.code)) for change in asked])


def _by_class(
    zoo: Zoo, family: RelabelFamily, networks: Sequence[StateDict], asked: Sequence[Change], split: str
) -> Tensor:
    """Accuracy (N, K) of the networks asked for each change, mean over them, on the images of every class."""
    labels = family.base.data(split).targets  # (M,), in 0 to K - 1
    images = family.task(family.seen[0]).data(split)  # those of every code
    scores = score_networks(family, family.build(), [zoo.complete(state) for state in networks], images)
    assert scores.predictions is not None  # relabelings are classified
    found = scores.predictions  # (N * n, M)
    bits = torch.stack([family.bits(change.code) for change in asked])  # (N, K)
    right = (found.view(len(asked), -1, len(labels)) == bits[:, labels][:, None]).float().mean(1)  # (N, M)
    return torch.stack([right[:, labels == k].mean(1) for k in range(bits.shape[1])], 1)


def _summary(zoo: Zoo, asked: Sequence[Change], rows: dict[str, Tensor], labels: Tensor) -> dict[str, Any]:
    share = torch.bincount(labels) / len(labels)  # (K,)
    of = {kind: torch.tensor([change.kind == kind for change in asked]) for kind in LABEL_CHANGES}
    bits = torch.tensor([change.bit for change in asked if change.bit is not None])
    found = []
    for name, accuracy in rows.items():
        whole = accuracy @ share  # (N,)
        one = accuracy[of["one bit"]]
        turned = torch.zeros_like(one, dtype=torch.bool).scatter_(1, bits[:, None], value=True)
        row: dict[str, Any] = {"name": name, "by_class": accuracy.tolist()}
        row |= {kind: float(whole[chosen].mean()) for kind, chosen in of.items()}
        found.append({**row, "turned": float(one[turned].mean()), "others": float(one[~turned].mean())})
    return {"zoo": zoo.name, "changes": [change._asdict() for change in asked], "rows": found}


def _table(values: dict[str, Any]) -> Table:
    table = Table("", "as seen", "one bit", "turned class", "other classes", "all bits", box=None)
    counts = ", ".join(f"{sum(c['kind'] == kind for c in values['changes'])} {kind}" for kind in LABEL_CHANGES[1:])
    table.caption = f"{values['split']} accuracy % on the new code; turned: {counts}"
    for row in values["rows"]:
        cells = (row[key] for key in ("none", "one bit", "turned", "others", "all bits"))
        table.add_row(row["name"], *(f"{100 * cell:.1f}" for cell in cells))
    return table
