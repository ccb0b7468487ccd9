"""Networks and their references: assignments and turns, and their gain.

K networks of P parameters, R of them selected; U units of a group or dimensions of a space, F numbers a unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from paramgen.core.factors import nearest_turn
from paramgen.symmetry.groups import PermutationSpec, Place, unit_of

_LEAST = 1e-6  # minimum relative gain of a change
_LEAST_TURN = 1e-5  # the same for turns, which are never exact


class Assigned(NamedTuple):
    """The networks (R,) whose units change places, and how (R, U): new unit u is old unit best[u]."""

    rows: Tensor
    best: Tensor


@dataclass(frozen=True)
class Pair:
    """Networks, changed in place, and their references.

    Args:
        reference: (K, P) or (1, P).
        W: (K, P).
        spec: The architecture's symmetries.
    """

    reference: Tensor
    W: Tensor
    spec: PermutationSpec

    def inner(self, tensors: set[str], rows: Tensor) -> Tensor:
        """⟨reference, network⟩ over some tensors: (R,)."""
        total = torch.zeros(len(rows))
        for name in tensors:
            part = self.spec.slices[name]
            ref = self.reference[:, part] if len(self.reference) == 1 else self.reference[rows, part]
            total += (ref * self.W[rows, part]).sum(1)
        return total

    def assign(self, slots: Sequence[Sequence[str]], places: Sequence[Place], rows: Tensor) -> Assigned:
        """The best order of a group's units, for networks where it is better than the current one.

        Args:
            slots: The spaces in its units, one space a unit each.
            places: The places of the group that can be compared.
            rows: (R,) indices of the networks.
        """
        cost = self._cost(slots, places, rows, self.W.dtype)  # (R, U, U)
        if not cost.isfinite().all():  # products of weights of 1e19 and more leave float32
            cost = self._cost(slots, places, rows, torch.float64)
        best, gain = _assign(cost)
        better = gain > _LEAST * cost.diagonal(dim1=1, dim2=2).abs().sum(1)
        return Assigned(rows[better], best[better])

    def turn(self, space: str, places: Sequence[Place], rows: Tensor) -> Tensor:
        """Turn a space to its reference, in place; returns the rows with a gain.

        Args:
            space: Which space.
            places: The places that can be compared: its own, or those of the group in whose units it is.
            rows: (R,) indices of the networks.
        """
        comparable = [place for place in self.spec.spaces[space] if any(_holds(outer, place) for outer in places)]
        if not comparable:
            return rows[:0]
        products = torch.zeros(())
        for place in comparable:
            ref, features = self._features(place, rows)
            products = products + ref.double() @ features.double().mT
        turn = nearest_turn(products)  # (R, U, U)
        most = (turn * products).sum((1, 2))
        better = most - products.diagonal(dim1=1, dim2=2).sum(1) > _LEAST_TURN * most
        self.spec.turn_(self.W, space, turn[better], rows[better])
        return rows[better]

    def _cost(
        self, slots: Sequence[Sequence[str]], places: Sequence[Place], rows: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """C[u, v] = ⟨ref unit u, unit v⟩ of each network, spaces in the units turned for the best: (R, U, U)."""
        total, turned = torch.zeros((), dtype=dtype), dict[int, Tensor]()
        for place in places:
            ref, features = (x.to(dtype) for x in self._features(place, rows))  # (1 or R, U, F), (R, U, F)
            slot = next((i for i, spaces in enumerate(slots) if self._in_slot(spaces, place)), None)
            if slot is None:
                total = total + ref @ features.mT
            else:
                a, b = (x.double().view(len(x), place.units, place.block, -1) for x in (ref, features))
                inner = torch.einsum("ruaf,rvbf->ruvab", a.expand(len(b), *a.shape[1:]), b)
                turned[slot] = turned[slot] + inner if slot in turned else inner
        for products in turned.values():
            total = total + torch.linalg.matrix_norm(products, "nuc")
        return total

    def _features(self, place: Place, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Reference (1 or R, U, F) and networks (R, U, F)."""
        one = len(self.reference) == 1
        ref = self.spec.features(self.reference, place) if one else self._of(self.reference, place, rows)
        return ref, self._of(self.W, place, rows)

    def _of(self, W: Tensor, place: Place, rows: Tensor) -> Tensor:
        return self.spec.window(W, place)[rows].reshape(len(rows), place.units, -1)

    def _in_slot(self, spaces: Sequence[str], place: Place) -> bool:
        return any(p[:5] == unit_of(place, 0) for p in self.spec.spaces[spaces[0]])


def _holds(outer: Place, place: Place) -> bool:
    same_axis = (outer.tensor, outer.axis) == (place.tensor, place.axis)
    return same_axis and outer.start <= place.start < outer.start + outer.units * outer.block


def _assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Best assignment (R, U) of (R, U, U), and what it gains (R,) over changing nothing."""
    R, U, _ = cost.shape
    stay = cost.diagonal(dim1=1, dim2=2)  # (R, U)
    best = torch.arange(U).repeat(R, 1)
    for r in (cost.amax(2) > stay).any(1).nonzero()[:, 0].tolist():  # else each unit is best where it is
        best[r] = torch.from_numpy(linear_sum_assignment(cost[r].numpy(), maximize=True)[1])
    gain = cost.gather(2, best[:, :, None])[:, :, 0].sum(1) - stay.sum(1)
    return best, gain
