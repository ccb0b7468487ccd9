"""Baselines that need the zoo's weights alone, one function each: (pool, n, generator) -> (n, P).

K: networks in the pool. P: parameters.

Convex combinations of networks stay in raw weights. The others draw with batch-norm's `running_var` in log space and come back through
exp, so that a variance is never negative; :func:`paramgen.evaluation.baseline.draw_from` does both conversions.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from paramgen.core.components import principal_components
from paramgen.core.density import kernel_samples
from paramgen.core.distances import column_slices
from paramgen.core.params import ParamSpec
from paramgen.errors import ParamgenError, did_you_mean
from paramgen.evaluation.baseline import Baseline, draw_from
from paramgen.evaluation.merging import METHODS, merging
from paramgen.evaluation.pool import Pool

PCA_COMPONENTS = 64  # at most; the latent of the p-diff prototype
TOP_SHARE = 0.3  # S_KDE30 keeps the best 30 % of the zoo


def copy(pool: Pool, n: int, generator: Generator) -> Tensor:
    """Copies of training networks, without replacement until all are used: retrieval."""
    K = len(pool.weights)
    rounds = [torch.randperm(K, generator=generator) for _ in range(-(-n // K))]
    return pool.weights[torch.cat(rounds)[:n]]  # (n, P)


def noise(pool: Pool, n: int, generator: Generator, sigma: float) -> Tensor:
    """Copies with white noise of standard deviation sigma x the tensor's spread in the zoo.

    The spread of a tensor is the root mean square, over its weights, of the standard deviation across networks: at sigma 1 the noise has
    the energy of the zoo's own spread, tensor by tensor, and a noised copy lies sigma x ‖std of the zoo‖ from its original.
    """
    variance = _std(pool.weights).square()  # (P,)
    scale = torch.cat([v.mean().sqrt().expand(len(v)) for v in variance.split(pool.sizes)]).to(pool.weights.dtype)
    return copy(pool, n, generator) + sigma * scale * _normal(n, pool.weights.shape[1], generator)


def interpolation(pool: Pool, n: int, generator: Generator) -> Tensor:
    """Points between a random pair: u w_i + (1 − u) w_j, u uniform in [0, 1]."""
    K = len(pool.weights)
    pairs = torch.stack([torch.randperm(K, generator=generator)[:2].expand(2) for _ in range(n)])  # (n, 2)
    u = torch.rand(n, 1, generator=generator)
    return u * pool.weights[pairs[:, 0]] + (1 - u) * pool.weights[pairs[:, 1]]


def soup(pool: Pool, n: int, generator: Generator, m: int) -> Tensor:
    """Means of m random training networks (all of them where the zoo has fewer): Wortsman et al. 2022's uniform soup."""
    K = len(pool.weights)
    choice = torch.zeros(n, K)
    for row in choice:
        row[torch.randperm(K, generator=generator)[:m]] = 1 / min(m, K)
    return choice @ pool.weights  # (n, P)


def gaussian(pool: Pool, n: int, generator: Generator) -> Tensor:
    """One Gaussian a weight, each with the zoo's mean and standard deviation."""
    std = _std(pool.weights).to(pool.weights.dtype)  # (P,)
    return pool.weights.mean(0) + std * _normal(n, pool.weights.shape[1], generator)


def pca_gaussian(pool: Pool, n: int, generator: Generator, components: int = PCA_COMPONENTS) -> Tensor:
    """A Gaussian in the zoo's principal components: the zoo's mean and covariance, cut to the largest components."""
    mean, basis, z = principal_components(pool.weights, components)
    std = _std(z).to(z.dtype)  # (k,)
    return mean + (std * _normal(n, len(std), generator)) @ basis


def kde(pool: Pool, n: int, generator: Generator, share: float = TOP_SHARE) -> Tensor:
    """S_KDE30 (Schürholt et al. 2022): a kernel density per latent dimension, of the best 30 % on train, dimensions drawn independently.

    The latent is the zoo's principal components; Gaussian kernels with Scott's bandwidth std x k^(-1/5), k networks kept.
    """
    mean, basis, z = principal_components(pool.weights, len(pool.weights))
    best = torch.arange(len(z))  # all, where there are no scores
    if pool.goodness is not None:
        best = pool.goodness.argsort(descending=True, stable=True)[: max(2, round(share * len(z)))]
    kept = z[best]  # (k, d)
    return mean + kernel_samples(kept[:, :, None], n, generator)[:, :, 0] @ basis


FROM_WEIGHTS: Mapping[str, Baseline] = MappingProxyType(
    {
        "copy": Baseline(copy, raw=True),
        **{f"noise-{s:g}": Baseline(partial(noise, sigma=s), noise=s) for s in (0.1, 0.3, 0.5, 1.0, 2.0)},
        "interpolation": Baseline(interpolation, raw=True),
        "soup-2": Baseline(partial(soup, m=2), raw=True),
        "soup-16": Baseline(partial(soup, m=16), raw=True),
        "gaussian": Baseline(gaussian),
        "pca-gaussian": Baseline(pca_gaussian),
        "kde": Baseline(kde, by_score=True),
    }
)


def find_baseline(name: str) -> Baseline:
    """A baseline of weights alone by its name, with any number for noise (``noise-0.01``), soups (``soup-100``) and merging (``ties-8``).

    Raises:
        ParamgenError: No such baseline.
    """
    if name in FROM_WEIGHTS:
        return FROM_WEIGHTS[name]
    kind, _, number = name.rpartition("-")
    if kind in METHODS and kind != "soup" and number.isdecimal() and int(number) > 0:
        return merging(kind, int(number))
    if kind == "soup" and number.isdecimal() and int(number) > 0:
        return Baseline(partial(soup, m=int(number)), raw=True)
    if kind == "noise" and number.replace(".", "", 1).isdecimal():
        return Baseline(partial(noise, sigma=float(number)), noise=float(number))
    known = [*FROM_WEIGHTS, "noise-SIGMA", *(f"{method}-M" for method in METHODS)]
    raise ParamgenError(f"Unknown baseline {name!r}. {did_you_mean(name, known)}")


def generate(name: str, pool: Pool, spec: ParamSpec, n: int, seed: int) -> Tensor:
    """Draw n networks (n, P) with a named baseline, running_var positive.

    Args:
        name: As :func:`find_baseline` takes it.
        pool: Raw weights of the zoo's train split.
        spec: Says which columns are variances.
        n: How many.
        seed: The same seed gives the same networks.
    """
    return draw_from(find_baseline(name), pool, spec, n, Generator().manual_seed(seed))


def _std(x: Tensor) -> Tensor:
    """Standard deviation (P,) of (K, P) in float64, where the squares of large weights do not overflow; 0 of one network."""
    correction = min(1, len(x) - 1)
    return torch.cat([x[:, c].double().std(0, correction=correction) for c in column_slices(x.shape[1])])


def _normal(n: int, P: int, generator: Generator) -> Tensor:
    return torch.randn(n, P, generator=generator)
