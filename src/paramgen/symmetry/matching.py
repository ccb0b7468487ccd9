"""Weight matching: order the hidden units of networks such that they are nearest to a reference.

Ainsworth et al. 2022, *Git Re-Basin* (arXiv:2209.04836), section 3.2: one linear assignment a group with the other groups held,
repeated until none changes. Departs: K networks at once; a network's first order is built group by group from the
tensors whose other axes are already settled, so that the result does not depend on the order the network came in.

K networks of P parameters; U units of a group, F numbers a unit. ‖w_ref − P w‖² = const − 2⟨w_ref, P w⟩, so the assignment maximises
C[u, v] = ⟨ref unit u, unit v⟩ summed over the tensors that carry the group.

A space (the rank of an adapter, q with k in a head) has no units but a basis: the orthogonal matrix that brings it nearest is the
polar factor of ref X^T (Procrustes). Where units hold spaces of their own (heads), C[u, v] is what is left after the best turn, the
nuclear norm of the spaces' products, and each space is turned after its unit has moved.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.core.params import StateDict
from paramgen.symmetry.groups import Permutations, PermutationSpec, Place, coupled, pick, stack
from paramgen.symmetry.pairs import Pair

MATCHING_ROUNDS = 100
_NUMBERS = 1 << 20  # weights processed at a time, such that they fit in the cache


class Matched(NamedTuple):
    """Networks in their new order (K, P), and the permutations (K, U) that led there."""

    weights: Tensor
    perms: Permutations

    def states(self, states: Sequence[Mapping[str, Tensor]], spec: PermutationSpec) -> list[StateDict]:
        """The K state dicts that were matched, in their new order: the same numbers, unless spaces were turned."""
        if spec.spaces:
            return [spec.filled(state, row) for state, row in zip(states, self.weights, strict=True)]
        return [spec.apply(state, pick(self.perms, k)) for k, state in enumerate(states)]


class _Part(NamedTuple):
    """A part that is settled at once: a group with the spaces in its units, or a space."""

    group: str | None
    spaces: tuple[tuple[str, ...], ...]  # one space per unit; a space without a group: itself
    places: tuple[Place, ...]


class _Step(NamedTuple):
    name: str
    places: tuple[Place, ...]  # places that can be compared when the part is settled
    final: bool  # these are all its places, so that one assignment settles it until another part changes


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
    """The permutations, (U,) a group, that bring one network nearest to another: ``spec.apply(state, perms)`` is aligned.

    Spaces are not turned by permutations: :func:`align_to` and :func:`match` turn them too.
    """
    return pick(match(stack([reference], spec), stack([state], spec), spec).perms, 0)


def align_matrix(
    W: Tensor, spec: PermutationSpec, reference: Tensor, rounds: int = 4, members: Sequence[int] | None = None
) -> Matched:
    """Align networks to a reference, then `rounds` times to the mean of the result.

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
        unmoved = all(torch.equal(still[group], perm) for group, perm in matched.perms.items())
        if unmoved and (not spec.spaces or torch.equal(before.nan_to_num(), matched.weights.nan_to_num())):
            return Matched(matched.weights, perms)
        matched = Matched(matched.weights, {group: p.gather(1, matched.perms[group]) for group, p in perms.items()})
    return matched


def align_to(
    reference: Mapping[str, Tensor], states: Sequence[Mapping[str, Tensor]], spec: PermutationSpec, rounds: int = 4
) -> list[StateDict]:
    """Networks with their units in the order of a reference, refined by rounds to the mean (:func:`align_matrix`)."""
    aligned = align_matrix(stack(states, spec), spec, stack([reference], spec)[0], rounds)
    return aligned.states(states, spec)


def _parts(spec: PermutationSpec) -> dict[str, _Part]:
    nested = {space for slots in spec.nested.values() for slot in slots for space in slot}
    alone = {name: places for name, places in spec.spaces.items() if name not in nested}
    turned = {frozenset(p[:5] for p in places) for places in alone.values()}  # a turn does what a permutation does
    parts = {
        group: _Part(group, spec.nested.get(group, ()), places)
        for group, places in spec.groups.items()
        if frozenset(p[:5] for p in places) not in turned
    }
    return parts | {f"space {name}": _Part(None, ((name,),), places) for name, places in alone.items()}


def _match(reference: Tensor, W: Tensor, spec: PermutationSpec, keep_order: bool) -> Matched:
    """As :func:`match`, in place, on as many networks as fit at once."""
    parts, pair, perms = _parts(spec), Pair(reference, W, spec), spec.identity(len(W))
    neighbours = coupled({name: part.places for name, part in parts.items()})
    finite = W.isfinite().all(1) & reference.isfinite().all(1)
    open_ = {name: finite.clone() for name in parts}  # networks whose part must be settled (again)
    schedule = _schedule(spec, parts, neighbours)
    if not keep_order:
        for name, places, final in schedule:
            rows = finite.nonzero()[:, 0]
            if len(places) and len(rows):
                _improve(pair, perms, parts[name], places, rows)
            open_[name] &= not final
    for _ in range(MATCHING_ROUNDS):
        for name, _, _ in schedule:
            part, rows = parts[name], open_[name].nonzero()[:, 0]
            open_[name][rows] = False
            if len(rows):
                changed = _improve(pair, perms, part, part.places, rows, name in neighbours[name])
                for other in neighbours[name]:
                    open_[other][changed] = True
        if not any(rows.any() for rows in open_.values()):
            break
    return Matched(W, perms)


def _improve(
    pair: Pair,
    perms: Permutations,
    part: _Part,
    places: Sequence[Place],
    rows: Tensor,
    coupled_to_itself: bool = False,
) -> Tensor:
    """Settle one part of some networks, in place; returns the rows that changed.

    Where a part occurs twice in one tensor, the solution is optimal for a linear objective, but the true one is not linear: a
    change that makes it worse is undone.
    """
    tensors = {p.tensor for p in part.places}
    old = pair.W[rows] if coupled_to_itself else None
    before = pair.inner(tensors, rows) if coupled_to_itself else None
    changed = torch.zeros(len(pair.W), dtype=torch.bool)
    if part.group is not None:
        moved, best = pair.assign(part.spaces, places, rows)
        changed[moved] = True
        pair.spec.permute_(pair.W, part.group, best, moved)
        perms[part.group][moved] = perms[part.group][moved].gather(1, best)
    for space in (space for slot in part.spaces for space in slot):
        changed[pair.turn(space, places, rows)] = True
    if old is not None and before is not None:
        worse = pair.inner(tensors, rows) <= before + 1e-6 * before.abs()
        back = changed[rows] & worse
        pair.W[rows[back]] = old[back]
        if part.group is not None:
            undo = torch.isin(moved, rows[back])
            perms[part.group][moved[undo]] = perms[part.group][moved[undo]].gather(1, best[undo].argsort(1))
        changed[rows[back]] = False
    return changed.nonzero()[:, 0]


def _schedule(spec: PermutationSpec, parts: Mapping[str, _Part], neighbours: Mapping[str, set[str]]) -> list[_Step]:
    """An order in which each part can be compared on as many tensors as possible: those whose other axes are fixed or settled."""
    on = {name: {(p.tensor, p.axis) for p in part.places} for name, part in parts.items()}
    settled: set[str] = set()

    def known(name: str) -> tuple[Place, ...]:
        unsettled = {(t, a) for other in neighbours[name] - settled for t, a in on[other]}
        return tuple(p for p in parts[name].places if not any(t == p.tensor and a != p.axis for t, a in unsettled))

    steps = []
    while len(settled) < len(parts):
        waiting = {name: known(name) for name in parts if name not in settled}
        numbers = {
            name: sum(spec.slices[p.tensor].stop - spec.slices[p.tensor].start for p in ps)
            / parts[name].places[0].units
            for name, ps in waiting.items()
        }
        name = max(waiting, key=lambda n: numbers[n])  # the first of equals
        steps.append(_Step(name, waiting[name], waiting[name] == parts[name].places))
        settled.add(name)
    return steps
