"""Two tensors whose product alone counts: the rank of an adapter, q and k of an attention head.

X: (U, F) and Y: (U, E), U dimensions of a space. X^T Y is unchanged by X -> G X, Y -> G^-T Y for every invertible G (U, U).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """X (…, U, F) and Y (…, U, E)."""

    x: Tensor
    y: Tensor


def balanced_factors(x: Tensor, y: Tensor) -> Factors:
    """The factors of smallest L2 norm with the same product, in one form.

    X^T Y = L S R^T becomes X = S^1/2 L^T, Y = S^1/2 R^T, in the order of S, the largest entry of each row of Y positive. Unique where the
    singular values differ. Directions whose singular value is 0 become 0.

    Args:
        x: (…, U, F).
        y: (…, U, E).
    """
    Qx, Rx = torch.linalg.qr(x.double().mT)  # (…, F, p), (…, p, U)
    Qy, Ry = torch.linalg.qr(y.double().mT)  # (…, E, q), (…, q, U)
    L, S, Rh = torch.linalg.svd(Rx @ Ry.mT, full_matrices=False)  # (…, p, k), (…, k), (…, k, q)
    left, right = (Qx @ L).mT, Rh @ Qy.mT  # (…, k, F), (…, k, E)
    sign = right.gather(-1, right.abs().argmax(-1, keepdim=True)).sign()  # (…, k, 1)
    root = sign * S.sqrt()[..., None]
    new_x, new_y = torch.zeros_like(x), torch.zeros_like(y)
    new_x[..., : S.shape[-1], :] = (root * left).to(x.dtype)
    new_y[..., : S.shape[-1], :] = (root * right).to(y.dtype)
    return Factors(new_x, new_y)


def nearest_turn(products: Tensor) -> Tensor:
    """The orthogonal R (…, U, U) that brings R X nearest to a reference, given the products (…, U, U) of reference and X^T (Procrustes)."""
    U, _, Vh = torch.linalg.svd(products.double())
    turn: Tensor = U @ Vh
    return turn.to(products.dtype)
