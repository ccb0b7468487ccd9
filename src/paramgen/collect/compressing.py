"""``paramgen zoo prune | quantise``: the networks of a zoo in another form, as a zoo of their own.

n: networks trained at once. Pruning keeps the largest weights of every layer and trains on (Han et al. 2015, arXiv:1506.02626); the
networks' common start, where they have one, is kept for the lottery-ticket check (Frankle and Carbin 2019, arXiv:1803.03635).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch

from paramgen.collect.collector import NUMBERS_AT_ONCE
from paramgen.collect.single import first_network
from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings
from paramgen.core.counting import counted
from paramgen.core.devices import usable_device
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec, StateDict, can_be_generated, state_tensors
from paramgen.core.seeds import mix
from paramgen.core.zoo import PARTS, Zoo
from paramgen.core.zoo_writer import ZooWriter, check_resumable
from paramgen.errors import ParamgenError, require_choice, require_non_negative
from paramgen.tasks import PrunedTask, QuantisedTask, Task, task_of
from paramgen.tasks.compressed import CompressedTask, compressible
from paramgen.tasks.pruned import PRUNING_MASK, magnitude_masks, pruned_state
from paramgen.tasks.quantised import quantised_state
from paramgen.tasks.score import plain_scores

ORIGIN = "origin.safetensors"  # in a zoo of pruned networks: the plain, untrained network that all runs started from
Masks = Literal["own", "shared"]
SCORED = 10_000  # items of a split that each network is scored on


def prune(
    zoo: str,
    out: str,
    sparsity: float = 0.8,
    masks: Masks = "own",
    steps: int = 100,
    optim: OptimSettings | None = None,
    device: str = "cpu",
    trust: bool = False,
) -> Zoo:
    """Write a zoo of pruned networks: in each layer the largest weights are kept, and trained on under a fixed mask.

    Args:
        zoo: Folder or name of a zoo of plain networks.
        out: Folder of the pruned zoo.
        sparsity: Share of each layer's weights that are 0.
        masks: ``own``: each network has a mask, which is generated too. ``shared``: one mask for all, by the mean magnitude over the
            training networks; it is kept and not generated.
        steps: Optimizer steps after pruning.
        optim: Optimizer, learning rate and batch size of these steps. Default: Adam, 1e-3.
        device: Device to train on, for example cuda.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: A sparsity that is not between 0 and 1, a zoo of several tasks, or one that does not generate all weights.
    """
    require_choice(Masks, masks=masks)
    require_non_negative(steps=steps)
    usable_device(device)
    opened, optim = Zoo(zoo, trust), optim or OptimSettings(lr=1e-3)
    task = PrunedTask(_plain_task(opened), sparsity)
    layers = compressible(task.of.build())
    _require_generated(opened, layers)
    recipe = {"pruned_from": str(opened.path), "sparsity": sparsity, "masks": masks, "steps": steps}
    recipe |= {"optim": asdict(optim), "recipe": opened.meta["recipe"]}
    check_resumable(out, task.config(), recipe)
    one = None if masks == "own" else magnitude_masks(map(opened.full, opened.indices("train")), layers, sparsity)

    def pruned(i: int) -> StateDict:
        state = opened.full(i)
        return pruned_state(state, magnitude_masks([state], layers, sparsity) if one is None else one)

    states = _trained(task, [pruned(i) for i in range(len(opened))], steps, optim, device)
    names = [name for name in pruned(0) if one is None or name not in one]
    written = _write(opened, task, out, recipe, states, names, device)
    if (origin := _origin(opened, task.of)) is not None:
        write_tensors(written.path / ORIGIN, origin)
    _say(written, f"{100 * sparsity:g} % of each layer's weights 0, masks {masks}")
    return written


def quantise(zoo: str, out: str, device: str = "cpu", trust: bool = False) -> Zoo:
    """Write a zoo of the same networks with int8 weights: of each output channel a scale and a zero point. Biases stay as they were.

    Args:
        zoo: Folder or name of a zoo of plain networks.
        out: Folder of the quantised zoo.
        device: Device to score on.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: A zoo of several tasks, or one that does not generate all weights.
    """
    usable_device(device)
    opened = Zoo(zoo, trust)
    task = QuantisedTask(_plain_task(opened))
    layers = compressible(task.of.build())
    _require_generated(opened, layers)
    recipe = {"quantised_from": str(opened.path), "recipe": opened.meta["recipe"]}
    check_resumable(out, task.config(), recipe)
    states = [quantised_state(opened.full(i), layers) for i in range(len(opened))]
    written = _write(opened, task, out, recipe, states, list(states[0]), device)
    _say(written, "weights in int8")
    return written


def _plain_task(opened: Zoo) -> Task:
    task = task_of(opened)
    if isinstance(task, CompressedTask):
        raise ParamgenError(f"zoo {opened.name!r} holds networks of a {type(task).__name__}, expected plain ones")
    return task


def _require_generated(opened: Zoo, layers: Sequence[str]) -> None:
    """Refuse a zoo whose networks share weights of these layers: there would be nothing to choose for each."""
    if shared := [name for name in layers if f"{name}.weight" not in opened.spec.names]:
        raise ParamgenError(
            f"zoo {opened.name!r} does not generate {shared[0]}.weight; expected one of all weights (parameters: [all])"
        )


def _trained(task: Task, states: list[StateDict], steps: int, optim: OptimSettings, device: str) -> Iterator[StateDict]:
    """Networks after further training, in order, many at once; their masks do not change."""
    network = task.build()
    trained = [n for n, t in state_tensors(network).items() if can_be_generated(t) and not n.endswith(PRUNING_MASK)]
    size = max(1, NUMBERS_AT_ONCE // sum(t.numel() for t in states[0].values()))
    for first in range(0, len(states), size):
        some = states[first : first + size]
        if steps == 0:
            yield from some
            continue
        group = NetworkGroup(
            network,
            some,
            trained,
            device,
            loss=task.loss,
            with_targets=task.takes_targets,
            among=min(size, len(states)),
        )
        seeds = [mix(0, 5, first + i) for i in range(len(some))]
        for _ in GroupTrainer(group, task.items("train"), optim, seeds, steps).run():
            pass
        yield from group.states()


def _write(
    opened: Zoo,
    task: Task,
    out: str,
    recipe: dict[str, Any],
    states: Iterable[StateDict],
    names: Sequence[str],
    device: str,
) -> Zoo:
    """The networks of a zoo in another form, in its order and with new scores."""
    with torch.random.fork_rng(devices=[]):
        spec = ParamSpec.of(task.build(), names)
    networks = list(states)
    base = {name: tensor for name, tensor in networks[0].items() if name not in (*spec.names, *spec.aliases)}
    writer = ZooWriter(out, spec, base, task.config(), recipe)
    parts = [part for part in PARTS if all(part in entry.scores for entry in opened.entries)]
    scores = {part: task.evaluate(networks, part, SCORED, device) for part in parts}
    done = writer.done
    for i, (entry, state) in enumerate(zip(opened.entries, networks, strict=True)):
        if (entry.run, entry.step) not in done:
            kept = {key: value for key, value in vars(entry).items() if key not in ("file", "sha256", "scores")}
            writer.add(state, **kept, scores={part: plain_scores(of, i) for part, of in scores.items()})
    return writer.close(score=task.score.to_dict())


def _origin(opened: Zoo, task: Task) -> StateDict | None:
    """The untrained network that all runs of a zoo started from; None where they did not, or where it cannot be made again."""
    recipe = opened.meta["recipe"]
    if recipe.get("mode") != "trajectory" or recipe.get("epochs") != 0 or recipe.get("start") is not None:
        return None
    return state_tensors(first_network(task, recipe["seed"]))


def _say(zoo: Zoo, what: str) -> None:
    scores = zoo.recorded("val")
    mean = f", {zoo.score.name} {zoo.score.full(sum(scores) / len(scores))} on val" if scores else ""
    print(f"{counted(len(zoo), 'network')}, {what}{mean}, in {zoo.path}")
