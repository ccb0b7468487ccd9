"""Methods that merge networks into one, one function each: of weights alone, no training.

m: networks to merge. P: generated parameters. theta_0: the start, (P,). tau: a task vector, what training added to the start,
theta - theta_0. Every method returns one network (P,).

Task arithmetic: Ilharco et al. 2023 (arXiv:2212.04089). TIES: Yadav et al. 2023 (arXiv:2306.01708). DARE: Yu et al. 2024
(arXiv:2311.03099). Model Stock: Jang et al. 2024 (arXiv:2403.19522). Karcher mean: Karcher 1977, *Riemannian center of mass and mollifier
smoothing*; on the sphere of each tensor's direction, as merging tools use it (Goddard et al. 2024, arXiv:2403.13257).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor

from paramgen.errors import ParamgenError, did_you_mean
from paramgen.evaluation.baseline import Baseline
from paramgen.evaluation.pool import Pool

MERGED = 16  # networks in each merged one, as in soup-16
KARCHER_STEPS, KARCHER_TOLERANCE = 100, 1e-8


def uniform_soup(networks: Tensor) -> Tensor:
    """The mean (Wortsman et al. 2022, arXiv:2203.05482)."""
    return networks.mean(0)


def task_arithmetic(networks: Tensor, start: Tensor, scale: float = 0.4) -> Tensor:
    """theta_0 + scale x the sum of the task vectors.

    Args:
        networks: (m, P).
        start: (P,).
        scale: Lambda. The default is its authors' where no validation data choose it. 1/m makes it the mean, for every start.
    """
    return start + scale * (networks - start).sum(0)


def ties(networks: Tensor, start: Tensor, density: float = 0.2, scale: float = 1.0) -> Tensor:
    """Trim, elect signs, merge: theta_0 + scale x the mean of those trimmed task vectors that have the elected sign.

    Args:
        networks: (m, P).
        start: (P,).
        density: Share of each task vector to keep: its largest entries by magnitude.
        scale: Lambda.
    """
    return start + scale * elected_mean(trimmed(networks - start, density))


def dare(networks: Tensor, start: Tensor, generator: Generator, density: float = 0.1, scale: float = 0.4) -> Tensor:
    """Task arithmetic on task vectors of which a random share is kept and rescaled by 1/density.

    Args:
        networks: (m, P).
        start: (P,).
        generator: Chooses what is kept, separately for each network.
        density: Share to keep: 1 - p in the paper, whose p goes up to 0.9 for merging.
        scale: Lambda.
    """
    return start + scale * dropped(networks - start, density, generator).sum(0)


def dare_ties(
    networks: Tensor, start: Tensor, generator: Generator, density: float = 0.1, scale: float = 1.0
) -> Tensor:
    """TIES with DARE's random drop in place of its trimming.

    Args:
        networks: (m, P).
        start: (P,).
        generator: Chooses what is kept, separately for each network.
        density: Share to keep.
        scale: Lambda.
    """
    return start + scale * elected_mean(dropped(networks - start, density, generator))


def model_stock(networks: Tensor, start: Tensor, sizes: Sequence[int]) -> Tensor:
    """Between the start and the mean, tensor by tensor: t x mean + (1 - t) x theta_0, t = m cos / (1 + (m - 1) cos).

    cos is the mean cosine of two task vectors. Departs: t is kept within 0 and 1, where the paper's angles are acute anyway.

    Args:
        networks: (m, P).
        start: (P,).
        sizes: Of the tensors in P.
    """
    m, parts = len(networks), []
    for W, w0 in zip(networks.split(tuple(sizes), 1), start.split(tuple(sizes)), strict=True):
        mean = W.mean(0)
        units = _directions((W - w0).double())  # (m, p)
        cos = ((units.sum(0).square().sum() - units.square().sum()) / (m * (m - 1))).item() if m > 1 else 1.0
        t = min(1.0, m * cos / (1 + (m - 1) * cos)) if cos > 0 else 0.0
        parts.append(t * mean + (1 - t) * w0)
    return torch.cat(parts)


def karcher_mean(networks: Tensor, sizes: Sequence[int]) -> Tensor:
    """The mean on the sphere, tensor by tensor: the direction of least squared angles, with the mean norm. It has no start.

    Args:
        networks: (m, P).
        sizes: Of the tensors in P.
    """
    parts = []
    for W in networks.split(tuple(sizes), 1):
        X = W.double()  # (m, p)
        parts.append((X.norm(dim=1).mean() * sphere_mean(_directions(X))).to(W.dtype))
    return torch.cat(parts)


def trimmed(vectors: Tensor, density: float) -> Tensor:
    """The largest entries by magnitude of each row (m, P), a share `density` of them; the others are 0."""
    P = vectors.shape[1]
    largest = vectors.abs().topk(max(1, round(density * P)), dim=1).indices
    return torch.zeros_like(vectors).scatter(1, largest, vectors.gather(1, largest))


def dropped(vectors: Tensor, density: float, generator: Generator) -> Tensor:
    """A random share `density` of the entries (m, P), rescaled by 1/density; the others are 0."""
    kept = torch.rand(vectors.shape, generator=generator) < density
    return torch.where(kept, vectors / density, 0.0)


def elected_mean(vectors: Tensor) -> Tensor:
    """For each parameter the mean (P,) of the entries (m, P) whose sign is that of their sum."""
    agrees = (vectors.sign() == vectors.sum(0).sign()) & (vectors != 0)
    return torch.where(agrees, vectors, 0.0).sum(0) / agrees.sum(0).clamp_min(1)


def sphere_mean(units: Tensor) -> Tensor:
    """The Karcher mean (p,) of unit vectors (m, p), by steps along the mean of their logarithms; rows of zeros have no say."""
    units = units[units.any(1)]
    if not len(units):
        return units.new_zeros(units.shape[1])
    centre = units.mean(0)
    centre = centre / centre.norm() if centre.norm() > KARCHER_TOLERANCE else units[0]
    for _ in range(KARCHER_STEPS):
        cos = (units @ centre).clamp(-1, 1)  # (m,)
        across = units - cos[:, None] * centre
        sin = across.norm(dim=1)
        weight = torch.where(sin > KARCHER_TOLERANCE, torch.atan2(sin, cos) / sin.clamp_min(KARCHER_TOLERANCE), 1.0)
        step = (weight[:, None] * across).mean(0)  # in the tangent space at the centre
        angle = step.norm()
        if angle < KARCHER_TOLERANCE:
            break
        centre = angle.cos() * centre + angle.sin() * step / angle
        centre = centre / centre.norm()
    return centre


METHODS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "task-arithmetic": task_arithmetic,
        "ties": ties,
        "dare": dare,
        "dare-ties": dare_ties,
        "model-stock": model_stock,
        "karcher": karcher_mean,
        "soup": uniform_soup,
    }
)
_CONVEX = (model_stock, karcher_mean, uniform_soup)  # a mean of variances is a variance


def merging(method: str, m: int, **options: float | None) -> Baseline:
    """A baseline that merges m random networks of a pool into each of its own, all of them where the pool has fewer.

    Args:
        method: In :data:`METHODS`.
        m: How many networks.
        options: ``scale`` and ``density``, where the method takes them; None for its default.

    Raises:
        ParamgenError: An unknown method, an option that it does not take, or one out of range.
    """
    if method not in METHODS:
        raise ParamgenError(f"Unknown method {method!r}. {did_you_mean(method, METHODS)}")
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - signature(METHODS[method]).parameters.keys():
        takers = [name for name, merge in METHODS.items() if min(unknown) in signature(merge).parameters]
        raise ParamgenError(f"method {method} does not take {min(unknown)}; {', '.join(takers)} take it")
    if not 0 < given.get("density", 1) <= 1:
        raise ParamgenError(f"density is {given['density']:g}, expected more than 0 and at most 1")
    return Baseline(
        partial(_merged, method=METHODS[method], m=m, options=given),
        shown=frozenset({"requested"}),
        raw=METHODS[method] in _CONVEX,
    )


def _merged(
    pool: Pool, n: int, generator: Generator, method: Callable[..., Tensor], m: int, options: Mapping[str, float]
) -> Tensor:
    """N merged networks (n, P); of tasks, the networks are the seen tasks'."""
    networks = pool.weights if pool.new is None else pool.new.seen.weights
    available: dict[str, Any] = {"start": pool.origin(), "sizes": pool.sizes, "generator": generator, **options}
    inputs = {name: available[name] for name in signature(method).parameters if name in available}
    chosen = [torch.randperm(len(networks), generator=generator)[:m].sort().values for _ in range(n)]
    return torch.stack([method(networks[rows], **inputs) for rows in chosen])


def _directions(vectors: Tensor) -> Tensor:
    """Rows of length 1; rows of zeros stay zeros."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1.0)


FROM_MERGING: Mapping[str, Baseline] = MappingProxyType(
    {f"{name}-{MERGED}": merging(name, MERGED) for name in METHODS if name != "soup"}
)
