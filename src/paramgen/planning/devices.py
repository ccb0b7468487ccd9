"""Accelerators by name, with the figures of their makers' data sheets.

FLOP/s are dense ones (without structured sparsity), of the variant with the most memory bandwidth (SXM where there is one). Memory is the
size by which a card is sold, in units of 10^9 bytes: the driver reports about 6 % more, which the CUDA context and fragmentation take.
"""

from typing import NamedTuple

import psutil
import torch

from paramgen.errors import ParamgenError, did_you_mean


class Device(NamedTuple):
    """One accelerator, or one CPU core.

    Args:
        name: As typed on the command line.
        title: As its maker calls it.
        memory: Bytes.
        half: FLOP/s of matrix products in bfloat16 (float16 where there is no bfloat16).
        tf32: FLOP/s of float32 convolutions, which torch runs in TF32 by default where a card has it.
        full: FLOP/s of float32 matrix products, which torch runs without TF32 by default.
        bandwidth: Bytes/s of its memory.
        launch: Seconds that the host needs to start one operation.
        source: Where the figures are from.
    """

    name: str
    title: str
    memory: float
    half: float
    tf32: float
    full: float
    bandwidth: float
    launch: float
    source: str

    @property
    def workspaces(self) -> int:
        """Bytes that torch keeps for cuBLAS: a workspace for each thread that computes products, the fit's own and autograd's."""
        if not self.is_gpu:
            return 0
        return 2 * (HOPPER_WORKSPACE if self.name in ("h100", "h200") else WORKSPACE)

    @property
    def is_gpu(self) -> bool:
        """Whether it is not the host itself."""
        return self.name != "cpu"

    def flops(self, dtype: torch.dtype, convolution: bool) -> float:
        """FLOP/s of products of a dtype."""
        if dtype.itemsize <= 2:
            return self.half
        if dtype == torch.float64:
            return self.full / 2
        return self.tf32 if convolution else self.full


LAUNCH = 13e-6
"""Seconds of the host for one operation at :data:`EFFICIENCY` 1, from RPG-Tiny's 493 operations in 14.5 ms on an H200 (docs/gpu.md)."""

EFFICIENCY = 0.45
"""Share of the device's limits that a step reaches: RPG Small, Base and Large in eager mode on an H200 reach .44 to .49."""

HOPPER_WORKSPACE, WORKSPACE = 32 * 2**20, 8_519_680
"""Bytes of a cuBLAS workspace by torch's default on compute capability 9.0, and on other cards. On an H200, RPG Tiny, Small and Base peaked
72, 66 and 64 MB above what their tensors take; two workspaces are 67 MB."""

DEVICES = {
    row[0]: Device(*row)
    for row in (
        ("b200", "NVIDIA B200", 180e9, 2250e12, 1125e12, 75e12, 8.0e12, LAUNCH, "NVIDIA DGX B200 data sheet"),
        ("h200", "NVIDIA H200 SXM", 141e9, 989e12, 494e12, 67e12, 4.8e12, LAUNCH, "NVIDIA H200 data sheet"),
        ("h100", "NVIDIA H100 SXM", 80e9, 989e12, 494e12, 67e12, 3.35e12, LAUNCH, "NVIDIA H100 data sheet"),
        ("a100-80gb", "NVIDIA A100 SXM 80 GB", 80e9, 312e12, 156e12, 19.5e12, 2.04e12, LAUNCH, "NVIDIA A100 data sheet"),
        ("a100-40gb", "NVIDIA A100 SXM 40 GB", 40e9, 312e12, 156e12, 19.5e12, 1.56e12, LAUNCH, "NVIDIA A100 data sheet"),
        ("l40s", "NVIDIA L40S", 48e9, 362e12, 183e12, 91.6e12, 0.864e12, LAUNCH, "NVIDIA L40S data sheet"),
        ("a10g", "NVIDIA A10G", 24e9, 70e12, 35e12, 31.2e12, 0.6e12, LAUNCH, "NVIDIA A10G data sheet"),
        ("rtx4090", "NVIDIA GeForce RTX 4090", 24e9, 165e12, 82.6e12, 82.6e12, 1.01e12, LAUNCH, "NVIDIA Ada whitepaper"),
        ("rtx3090", "NVIDIA GeForce RTX 3090", 24e9, 71e12, 35.6e12, 35.6e12, 0.936e12, LAUNCH, "NVIDIA Ampere whitepaper"),
        ("t4", "NVIDIA T4", 16e9, 65e12, 8.1e12, 8.1e12, 0.32e12, LAUNCH, "NVIDIA T4 data sheet; float16"),
        ("v100-32gb", "NVIDIA V100 SXM 32 GB", 32e9, 125e12, 15.7e12, 15.7e12, 0.9e12, LAUNCH, "NVIDIA V100 data sheet; float16"),
        ("v100-16gb", "NVIDIA V100 SXM 16 GB", 16e9, 125e12, 15.7e12, 15.7e12, 0.9e12, LAUNCH, "NVIDIA V100 data sheet; float16"),
        ("mi300x", "AMD Instinct MI300X", 192e9, 1307e12, 653e12, 163e12, 5.3e12, LAUNCH, "AMD MI300X data sheet"),
        (
            "cpu", "one CPU core and this machine's memory", float(psutil.virtual_memory().total),
            500e9, 261e9, 261e9, 10e9, 2e-6, "one core of an AMD EPYC with AVX-512, measured by benchmarks/peak.py",
        ),
    )
}  # fmt: skip


def find_device(name: str) -> Device:
    """A device by its name.

    Raises:
        ParamgenError: No such device; similar names are listed.
    """
    known = DEVICES.get(name.lower().replace(" ", "").replace("_", "-"))
    if known is None:
        raise ParamgenError(f"Unknown device {name!r}. {did_you_mean(name.lower(), DEVICES, limit=len(DEVICES))}")
    return known
