"""Procedural shapes in the unit square, with exact signed distances: negative inside.

M: points. V: corners of a polygon. k: shapes.
"""

from functools import lru_cache
from math import cos, pi, sin
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ("disc", "ring", "box", "triangle", "cross", "star")
SHAPES = 2000  # number i is of kind i modulo 6
_SEED = 2303  # of the shapes themselves, which are the same everywhere


class PlaneShape(NamedTuple):
    """One shape.

    Args:
        kind: One of :data:`KINDS`.
        centre: (2,) row and column.
        size: Largest distance from the centre.
        angle: Rotation.
        aspect: 0.4 to 0.8: how narrow it is; of a ring, the share of the hole.
    """

    kind: str
    centre: Tensor
    size: float
    angle: float
    aspect: float


@lru_cache(1)
def all_shapes() -> list[PlaneShape]:
    """The shapes that fields represent: centres, sizes, rotations and proportions are uniform."""
    noise = torch.Generator().manual_seed(_SEED)
    drawn = torch.rand(SHAPES, 5, generator=noise, dtype=torch.float64, device="cpu")
    return [
        PlaneShape(KINDS[i % len(KINDS)], 0.38 + 0.24 * row[:2].float(), 0.2 + 0.15 * a, 2 * pi * b, 0.4 + 0.4 * c)
        for i, row in enumerate(drawn)
        for a, b, c in [row[2:].tolist()]
    ]


def signed_distance(shape: PlaneShape, points: Tensor) -> Tensor:
    """Exact signed distances (M,) of points (M, 2) from the border of a shape."""
    local = points - shape.centre
    radius: Tensor = local.norm(dim=1)
    if shape.kind == "disc":
        return radius - shape.size
    if shape.kind == "ring":
        hole = shape.aspect * shape.size
        return (radius - (shape.size + hole) / 2).abs() - (shape.size - hole) / 2
    turn = torch.tensor([[cos(shape.angle), -sin(shape.angle)], [sin(shape.angle), cos(shape.angle)]])
    return polygon_distance(shape.size * corners(shape.kind, shape.aspect) @ turn.T, local)


def corners(kind: str, aspect: float) -> Tensor:
    """The corners (V, 2) of a polygon in order; the farthest are at distance 1 from the centre."""
    if kind == "box":
        found = torch.tensor([[1.0, aspect], [1.0, -aspect], [-1.0, -aspect], [-1.0, aspect]])
    elif kind == "triangle":
        found = torch.tensor([[1.0, 0.0], [-0.6, aspect], [-0.6, -aspect]])
    elif kind == "cross":
        a = aspect / 2
        quarter = torch.tensor([[1.0, -a], [1.0, a], [a, a]])
        turns = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]])
        turns = torch.cat([turns, -turns])  # by 0, 90, 180 and 270 degrees
        found = torch.cat([quarter @ turn for turn in turns])
    else:  # a star of five points
        angles = torch.arange(10) * pi / 5
        lengths = torch.tensor([1.0, 0.75 * aspect]).repeat(5)
        found = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    unit: Tensor = found / found.norm(dim=1).max()
    return unit


def polygon_distance(corner: Tensor, points: Tensor) -> Tensor:
    """Exact signed distances (M,) of points (M, 2) from a polygon with corners (V, 2) in order; any simple polygon."""
    following = corner.roll(-1, 0)
    edge = following - corner  # (V, 2)
    to_point = points[:, None] - corner  # (M, V, 2)
    along = ((to_point * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
    nearest = (to_point - along[..., None] * edge).norm(dim=-1).amin(1)  # (M,)
    # a ray along the first coordinate crosses the border an odd number of times from inside
    spans = (corner[:, 1] > points[:, None, 1]) != (following[:, 1] > points[:, None, 1])  # (M, V)
    where = corner[:, 0] + (points[:, None, 1] - corner[:, 1]) * edge[:, 0] / edge[:, 1]
    inside = (spans & (points[:, None, 0] < where)).sum(1) % 2 == 1
    return torch.where(inside, -nearest, nearest)
