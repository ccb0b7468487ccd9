"""Weight matching: put the hidden units of networks in the order in which they come nearest to a reference.

Ainsworth et al. 2022, *Git Re-Basin* (arXiv:2209.04836), section 3.2: one linear assignment a group with the other groups held,
round after round until none changes. Departs: K networks at once; a network's first order is built group by group from the
tensors whose other axes are already settled, so that the result does not depend on the order the network came in.

K networks of P parameters; U units of a group, F numbers a unit. ‖w_ref − P w‖² = const − 2⟨w_ref, P w⟩, so the assignment maximises
C[u, v] = ⟨ref unit u, unit v⟩ summed over the tensors that carry the group.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.symmetry.groups import Permutations, PermutationSpec, Place, coupled, pick, stack

MATCHING_ROUNDS = 100
_PRICE_STEPS = 5
_NEAR = 0.1  # share of units at home from which prices save more than they cost
_NUMBERS = 1 << 20  # weights worked on at once: they stay in the cache


class Matched(NamedTuple):
    """Networks in their new order (K, P), and the permutations (K, U) that led there."""

    weights: Tensor
    perms: Permutations


class _Step(NamedTuple):
    group: str
    places: tuple[Place, ...]  # those that can be compared when its turn comes
    final: bool  # these are all its places, so that one assignment settles it until another group changes


def match(reference: Tensor, W: Tensor, spec: PermutationSpec, keep_order: bool = False) -> Matched:
    """Align networks to a reference each, or to one.

    Args:
        reference: (K, P) or (1, P), float32 on the CPU, where assignments are solved.
        W: (K, P), likewise; networks with NaN or infinite weights do not change.
        spec: The architecture's groups.
        keep_order: Start from the order the networks have (they are nearly aligned) rather than from none.
    """
    if not len(W):
        return Matched(W, spec.identity(0))
    step = max(1, _NUMBERS // max(W.shape[1], 1))
    parts = []
    for start in range(0, len(W), step):
        rows = slice(start, start + step)
        parts.append(_match(reference if len(reference) == 1 else reference[rows], W[rows].clone(), spec, keep_order))
    perms = {group: torch.cat([p.perms[group] for p in parts]) for group in spec.groups}
    return Matched(torch.cat([p.weights for p in parts]), perms)


def weight_matching(
    reference: Mapping[str, Tensor], state: Mapping[str, Tensor], spec: PermutationSpec
) -> Permutations:
    """The permutations, (U,) a group, that bring one network nearest to another: ``spec.apply(state, perms)`` is aligned."""
    return pick(match(stack([reference], spec), stack([state], spec), spec).perms, 0)


def align_matrix(
    W: Tensor, spec: PermutationSpec, reference: Tensor, rounds: int = 4, members: Sequence[int] | None = None
) -> Matched:
    """Align networks to a reference, then `rounds` times to the mean of what came out.

    Args:
        W: (K, P).
        spec: The architecture's groups.
        reference: (P,) the network to begin with.
        rounds: Rounds to the running mean; it stops early when no unit moves.
        members: The networks that make the mean (a zoo's train split); all by default. The others are aligned to it.
    """
    members = range(len(W)) if members is None else members
    matched = match(reference[None], W, spec)
    still = spec.identity(len(W))
    for _ in range(rounds):
        before, perms = matched
        mean = before[list(members)].mean(0, keepdim=True)
        matched = match(mean, before, spec, keep_order=True)
        if all(torch.equal(still[group], perm) for group, perm in matched.perms.items()):
            return Matched(matched.weights, perms)
        matched = Matched(matched.weights, {group: p.gather(1, matched.perms[group]) for group, p in perms.items()})
    return matched


def align_to(
    reference: Mapping[str, Tensor], states: Sequence[Mapping[str, Tensor]], spec: PermutationSpec, rounds: int = 4
) -> list[StateDict]:
    """Networks with their units in the order of a reference, refined by rounds to the mean (:func:`align_matrix`)."""
    perms = align_matrix(stack(states, spec), spec, stack([reference], spec)[0], rounds).perms
    return [spec.apply(state, pick(perms, k)) for k, state in enumerate(states)]


def _match(reference: Tensor, W: Tensor, spec: PermutationSpec, keep_order: bool) -> Matched:
    """As :func:`match`, in place, on as many networks as fit at once."""
    perms, neighbours = spec.identity(len(W)), coupled(spec.groups)
    finite = W.isfinite().all(1) & reference.isfinite().all(1)
    open_ = {group: finite.clone() for group in spec.groups}  # networks whose group must be assigned (again)
    schedule = _schedule(spec, neighbours)
    if not keep_order:
        for group, places, final in schedule:
            rows = finite.nonzero()[:, 0]
            if len(places) and len(rows):
                _improve(reference, W, spec, perms, group, places, rows)
            open_[group] &= not final
    for _ in range(MATCHING_ROUNDS):
        for group, _, _ in schedule:
            rows = open_[group].nonzero()[:, 0]
            open_[group][rows] = False
            if len(rows):
                changed = _improve(
                    reference, W, spec, perms, group, spec.groups[group], rows, group in neighbours[group]
                )
                for other in neighbours[group]:
                    open_[other][changed] = True
        if not any(rows.any() for rows in open_.values()):
            break
    return Matched(W, perms)


def _improve(
    reference: Tensor,
    W: Tensor,
    spec: PermutationSpec,
    perms: Permutations,
    group: str,
    places: Sequence[Place],
    rows: Tensor,
    coupled_to_itself: bool = False,
) -> Tensor:
    """Assign one group of some networks, in place; returns the rows whose order changed."""
    cost = _cost(reference, W, spec, places, rows)  # (R, U, U)
    best, gain = _assign(cost)
    better = gain > 1e-6 * cost.diagonal(dim1=1, dim2=2).abs().sum(1)
    rows, best = rows[better], best[better]
    if coupled_to_itself and len(
        rows
    ):  # the assignment is linear and the gain is not: try, and take back what is worse
        tensors = {p.tensor for p in places}
        before = _inner(reference, W, spec, tensors, rows)
        spec.permute_(W, group, best, rows)
        worse = _inner(reference, W, spec, tensors, rows) <= before + 1e-6 * before.abs()
        spec.permute_(W, group, best[worse].argsort(1), rows[worse])
        rows, best = rows[~worse], best[~worse]
    else:
        spec.permute_(W, group, best, rows)
    perms[group][rows] = perms[group][rows].gather(1, best)
    return rows


def _cost(reference: Tensor, W: Tensor, spec: PermutationSpec, places: Sequence[Place], rows: Tensor) -> Tensor:
    """C[u, v] = ⟨ref unit u, unit v⟩ of each network: (R, U, U)."""
    cost = _products(reference, W, spec, places, rows, W.dtype)
    if not cost.isfinite().all():  # products of weights of 1e19 and more leave float32
        cost = _products(reference, W, spec, places, rows, torch.float64)
    return cost


def _products(
    reference: Tensor, W: Tensor, spec: PermutationSpec, places: Sequence[Place], rows: Tensor, dtype: torch.dtype
) -> Tensor:
    total: Tensor | None = None
    for place in places:
        ref = spec.features(reference if len(reference) == 1 else reference[rows], place)  # (1 or R, U, F)
        mine = spec.window(W, place)[rows].reshape(len(rows), place.units, -1)  # (R, U, F)
        inner = ref.to(dtype) @ mine.to(dtype).mT
        total = inner if total is None else total.add_(inner)
    assert total is not None
    return total


def _assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Best assignment (R, U) of (R, U, U), and what it gains (R,) over changing nothing."""
    R, U, _ = cost.shape
    stay = cost.diagonal(dim1=1, dim2=2)  # (R, U)
    best = torch.arange(U).repeat(R, 1)
    home = (cost.amax(2) <= stay).float().mean(1)  # (R,) share of units that are best where they are
    for r in (home <= _NEAR).nonzero()[:, 0].tolist():
        best[r] = torch.from_numpy(linear_sum_assignment(cost[r].numpy(), maximize=True)[1])
    near = ((home > _NEAR) & (home < 1)).nonzero()[:, 0]  # where all are, staying is optimal
    for r, matrix in zip(near.tolist(), _reduced(cost[near]).numpy(), strict=True):
        best[r] = torch.from_numpy(linear_sum_assignment(matrix)[1])
    gain = cost.gather(2, best[:, :, None])[:, :, 0].sum(1) - stay.sum(1)
    return best, gain


def _reduced(cost: Tensor) -> Tensor:
    """The same assignment problem (R, U, U), to be minimised, with column prices near those at which staying is optimal.

    Any prices leave the optimum where it is; with these, most units of a nearly aligned network find their own column at once.
    """
    regret = cost.diagonal(dim1=1, dim2=2)[:, :, None] - cost  # (R, U, U)
    price = torch.zeros_like(cost[:, 0])  # (R, U)
    for _ in range(_PRICE_STEPS):
        price = torch.minimum(price, (price[:, :, None] + regret).amin(1))
    return regret - price[:, None, :]


def _inner(reference: Tensor, W: Tensor, spec: PermutationSpec, tensors: set[str], rows: Tensor) -> Tensor:
    """⟨reference, network⟩ over some tensors: (R,)."""
    total = torch.zeros(len(rows))
    for name in tensors:
        part = spec.slices[name]
        ref = reference[:, part] if len(reference) == 1 else reference[rows, part]
        total += (ref * W[rows, part]).sum(1)
    return total


def _schedule(spec: PermutationSpec, neighbours: Mapping[str, set[str]]) -> list[_Step]:
    """An order in which each group has as much as possible to go by: tensors whose other axes are fixed or settled."""
    on = {group: {(p.tensor, p.axis) for p in places} for group, places in spec.groups.items()}
    settled: set[str] = set()

    def known(group: str) -> tuple[Place, ...]:
        unsettled = {(t, a) for other in neighbours[group] - settled for t, a in on[other]}
        return tuple(p for p in spec.groups[group] if not any(t == p.tensor and a != p.axis for t, a in unsettled))

    steps = []
    while len(settled) < len(spec.groups):
        waiting = {g: known(g) for g in spec.groups if g not in settled}
        numbers = {
            g: sum(spec.slices[p.tensor].stop - spec.slices[p.tensor].start for p in ps) / spec.units[g]
            for g, ps in waiting.items()
        }
        group = max(waiting, key=lambda g: numbers[g])  # the first of equals
        steps.append(_Step(group, waiting[group], waiting[group] == spec.groups[group]))
        settled.add(group)
    return steps
