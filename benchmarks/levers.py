"""Other formulations of what a step spends its time on, in turns with today's code: RPG's conv head, p-diff's denoiser, the draws of noise.

    OMP_NUM_THREADS=1 python benchmarks/levers.py --out benchmarks/results/x86_64_cpu_levers.json     # 4 CPU minutes

Ratios are CPU seconds over those of today's code, forward and backward, the median and the fastest of the turns. All candidates of a part
compute the same (checked), with the same weights; `difference` is the largest one of their outputs over the outputs' standard deviation.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.io import write_json
from paramgen.diffusion import Diffusion
from paramgen.evaluation.compare import machine
from paramgen.nn import rows
from paramgen.nn.embeddings import time_features
from paramgen.nn.token_heads import ConvHead, MLPHead
from paramgen.nn.unet1d import ConvChain, MLPDenoiser

Convolution = Callable[[nn.Conv1d, Tensor], Tensor]  # of h (B, C, 1, L): (B, C', 1, L)


def contiguous(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """conv1d as torch has it, the length innermost."""
    return conv(h[:, :, 0].contiguous())[:, :, None]


def as_columns(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """Every window as a row of a matrix (im2col), one matrix product."""
    k, pad = conv.kernel_size[0], int(conv.padding[0])
    windows = F.pad(h[:, :, 0], (pad, pad)).unfold(2, k, 1)  # (B, C, L, k)
    columns = windows.permute(0, 2, 1, 3).flatten(2)  # (B, L, C k)
    return F.linear(columns, conv.weight.flatten(1).to(h.dtype), _bias(conv, h)).transpose(1, 2)[:, :, None]


def as_shifts(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """One matrix product for each place of the kernel, summed."""
    k, pad = conv.kernel_size[0], int(conv.padding[0])
    L, x = h.shape[-1], F.pad(h[:, :, 0].transpose(1, 2), (0, 0, pad, pad))  # (B, L + k - 1, C)
    weight = conv.weight.to(h.dtype)
    out = F.linear(x[:, :L], weight[:, :, 0], _bias(conv, h))
    for i in range(1, k):
        out = out + x[:, i : i + L] @ weight[:, :, i].T
    return out.transpose(1, 2)[:, :, None]


def one_row(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """All tokens in one long row, with the padding between them."""
    B, C, _, L = h.shape
    pad = int(conv.padding[0])
    row = F.pad(h, (0, pad)).permute(1, 2, 0, 3).reshape(1, C, 1, B * (L + pad))
    row = row.contiguous(memory_format=torch.channels_last)
    out = rows.conv_row(conv, row)  # (1, C', 1, B (L + pad))
    return out.reshape(-1, B, L + pad)[:, :, :L].transpose(0, 1)[:, :, None]


def edges_as_columns(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """Layers from or to one channel as a matrix product, the others as today."""
    return as_columns(conv, h) if 1 in conv.weight.shape[:2] else rows.conv_row(conv, h)


def float32_edges(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """Layers of at most 64 channels in float32 at every precision, the others as today."""
    if max(conv.weight.shape[:2]) > 64:
        return rows.conv_row(conv, h)
    with torch.autocast("cpu", enabled=False):
        return rows.conv_row(conv, h.float())


FORMS: dict[str, Convolution | None] = {
    "today: one row, channels innermost": None,
    "conv1d, length innermost": contiguous,
    "im2col and one product": as_columns,
    "one product for each place of the kernel": as_shifts,
    "all tokens in one long row": one_row,
    "im2col for one channel": edges_as_columns,
}


def _bias(conv: nn.Conv1d, h: Tensor) -> Tensor | None:
    return None if conv.bias is None else conv.bias.to(h.dtype)


def in_turns(candidates: dict[str, Callable[[], Tensor]], turns: int) -> dict[str, dict[str, float]]:
    """CPU seconds of candidates that take turns; the first of them is today's code."""
    outputs, times = {}, {name: list[float]() for name in candidates}
    for turn in range(turns + 1):  # the first warms up
        for name, run in candidates.items():
            start = time.process_time()
            outputs[name] = run()
            if turn:
                times[name].append(time.process_time() - start)
    today, *_ = times.values()
    first, *_ = outputs.values()
    return {
        name: {
            "ms": 1e3 * median(own),
            "ratio": median(own) / median(today),
            "fastest": min(own) / min(today),
            "difference": float((outputs[name].float() - first.float()).abs().max() / first.float().std()),
        }
        for name, own in times.items()
    }


def with_form(own: ConvHead | ConvChain, form: Convolution, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
    """The forward pass of a head or a chain with its convolutions in another form."""
    time_of = own.time
    if isinstance(own, ConvChain):
        z, added = x[:, :, None], time_of(t)[:, None, None]
        for conv, after in zip(own.convs, own.after, strict=True):
            z = after(form(conv, z + added))
        return z[:, :, 0]
    assert c is not None
    scale = time_of(time_features(t))[:, None, None]
    shift, h, kept = c[:, None, None] * scale, x[:, None, None], list[Tensor]()
    for i, conv in enumerate(own.convs):
        h = form(conv, (h * scale).add_(shift))
        h = F.elu(own.norms[i](h), inplace=True) if i < len(own.norms) else h
        mirror = len(own.convs) - 2 - i
        h = h + kept[mirror] if 0 <= mirror < i else h
        kept.append(h)
    return h[:, 0, 0]


def step_of(own: nn.Module, form: Convolution | None, bf16: bool, *inputs: Tensor) -> Callable[[], Tensor]:
    """Forward and backward of a network; its output.

    Args:
        own: A head or a chain.
        form: Of its convolutions; None runs the code of today.
        bf16: Under autocast.
        inputs: Of its forward pass.
    """

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            out = own(*inputs) if form is None else with_form(own, form, *inputs)
        out.float().square().mean().backward()
        own.zero_grad()
        return out.detach()

    return run


def head(turns: int) -> dict[str, Any]:
    """RPG Tiny's head on a batch of 8 networks of 10 tokens."""
    torch.manual_seed(0)
    own = ConvHead(256, 256, [1, 32, 64, 128, 64, 32, 1])
    x, t, z = torch.randn(80, 256), torch.randint(1000, (80,)), torch.randn(80, 256)
    c = own.project(z).detach()
    found: dict[str, Any] = {}
    for name, bf16 in (("float32", False), ("bf16", True)):
        candidates = {label: step_of(own, form, bf16, x, t, c) for label, form in FORMS.items()}
        found[name] = in_turns(candidates, turns)
    return found


def compiled_head(turns: int) -> dict[str, Any]:
    """The same by torch.compile on the CPU; the seconds that compiling takes."""
    torch.manual_seed(0)
    own = ConvHead(256, 256, [1, 32, 64, 128, 64, 32, 1])
    x, t, z = torch.randn(80, 256), torch.randint(1000, (80,)), torch.randn(80, 256)
    c, today = own.project(z).detach(), step_of(own, None, False, x, t, own.project(z).detach())
    fast = torch.compile(own)
    start = time.process_time()

    def run() -> Tensor:
        out = fast(x, t, c)
        out.square().mean().backward()
        own.zero_grad()
        return out.detach()

    run()
    seconds = time.process_time() - start
    return {"compile_seconds": seconds, "float32": in_turns({"today": today, "torch.compile": run}, turns)}


def denoiser(turns: int) -> dict[str, Any]:
    """The released p-diff's denoiser on latents of 50 networks, in bf16."""
    torch.manual_seed(0)
    shape = (4, 128)
    own = ConvChain(shape)
    z, t = torch.randn(50, *shape), torch.randint(1000, (50,))
    candidates = {label: step_of(own, form, True, z, t) for label, form in FORMS.items() if "product" not in label}
    candidates["layers of at most 64 channels in float32"] = step_of(own, float32_edges, True, z, t)
    candidates["all in float32"] = step_of(own, None, False, z, t)
    pure = ConvChain(shape)
    pure.load_state_dict(own.state_dict())
    pure.bfloat16()
    pure.time.float()

    def in_bf16() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = pure(z.bfloat16(), t)
        out.float().square().mean().backward()
        pure.zero_grad()
        return out.detach()

    candidates["weights in bf16"] = in_bf16
    return in_turns(candidates, turns)


def draws(turns: int) -> dict[str, Any]:
    """What the draws of steps and noise take of a step, which bounds what any fusion of them can gain."""
    diffusion, found = Diffusion(), {}
    conv, mlp = ConvHead(256, 256, [1, 32, 64, 128, 64, 32, 1]), MLPHead(128, 128)
    cases: dict[str, tuple[nn.Module, Tensor, list[Tensor]]] = {
        "RPG Tiny, conv head, 80 tokens of 256": (conv, torch.randn(80, 256), [conv.project(torch.randn(80, 256)).detach()]),
        "RPG, mlp head, 1,024 tokens of 128": (mlp, torch.randn(1024, 128), [mlp.project(torch.randn(1024, 128)).detach()]),
        "p-diff, MLP on 50 latents of 40": (MLPDenoiser((1, 40)), torch.randn(50, 1, 40), []),
    }  # fmt: skip
    for name, (network, x, extra) in cases.items():

        def step(network: nn.Module = network, x: Tensor = x, extra: list[Tensor] = extra) -> Tensor:
            noised = diffusion.noise(x)
            out = network(noised.x_t, noised.t, *extra)
            (out - noised.target).square().mean().backward()
            network.zero_grad()
            return x

        def each(x: Tensor = x) -> Tensor:
            for _ in range(64):
                torch.randint(1000, (len(x),))
                torch.randn(x.shape)
            return x

        def together(x: Tensor = x) -> Tensor:
            torch.randint(1000, (64, len(x)))
            torch.randn(64, *x.shape)
            return x

        whole = in_turns({"8 steps": lambda step=step: max((step() for _ in range(8)), key=id), "draws": each}, turns)
        fused = in_turns({"each": each, "together": together}, turns)
        found[name] = {"share_of_step": whole["draws"]["ratio"] / 8, "together_over_each": fused["together"]["ratio"]}
    return found


PARTS = {"head": head, "compiled_head": compiled_head, "denoiser": denoiser, "draws": draws}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results |= {"machine": machine(), "threads": 1, "turns": args.turns}
    for part in args.only:
        results[part] = PARTS[part](args.turns)
        print(part, json.dumps(results[part], indent=1), flush=True)
        write_json(args.out, results)


if __name__ == "__main__":
    main()
