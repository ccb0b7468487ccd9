"""What this CPU's arithmetic allows: GFLOP/s of one thread, measured on large products, and the GFLOP of a training step."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def peak_gflops(dtype: torch.dtype) -> float:
    """The faster of a matrix product (1024^3) and a convolution (kernel 7, 64 to 128 channels innermost), best of 10."""
    a = torch.randn(1024, 1024).to(dtype)
    x = torch.randn(96, 64, 1, 256).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(128, 64, 1, 7).to(dtype).contiguous(memory_format=torch.channels_last)

    def product() -> Tensor:
        return a @ a

    def convolution() -> Tensor:
        return torch.nn.functional.conv2d(x, w, padding=(0, 3))

    return max(2 * 1024**3 / _seconds(product), 2 * 96 * 256 * 7 * 64 * 128 / _seconds(convolution)) / 1e9


def bound(step: Callable[[], object], ms: float, dtype: torch.dtype) -> dict[str, float]:
    """How far a step is from the peak.

    Args:
        step: Runs one, forward and backward.
        ms: What it takes.
        dtype: Of its products.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    gflop, peak = counter.get_total_flops() / 1e9, peak_gflops(dtype)
    least = 1e3 * gflop / peak
    return {"gflop": gflop, "peak_gflops": peak, "least_ms": least, "share_of_peak": least / ms}


def _seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(11):  # the first warms up
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times[1:])
