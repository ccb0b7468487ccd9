"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as generated weights, through peft.

A: (r, in, …) and B: (out, r, …) of one adapted layer, whose weight changes by alpha/r B A. G: any invertible (r, r); (B G, G^-1 A) is the
same layer, so that independently trained adapters differ in G as networks differ in the order of their neurons. :func:`fix_gauge` and
:func:`align_gauge` choose one G.

Adapted networks are plain modules with peft's layers in them: their state dict has ``X.base_layer.weight``, ``X.lora_A.default.weight`` and
``X.lora_B.default.weight`` where the plain one has ``X.weight``. DoRA (Liu et al. 2024, arXiv:2402.09353) also has the lengths of the
changed weight's rows, ``X.lora_magnitude_vector.default.weight``.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from paramgen.core.factors import balanced_factors, nearest_turn
from paramgen.core.io import read_json, read_tensors, write_json, write_tensors
from paramgen.core.params import ParamSpec, StateDict
from paramgen.errors import ParamgenError, did_you_mean, require_positive

ADAPTER = "default"  # peft's name of a single adapter
MAGNITUDE = ".lora_magnitude_vector."
PARTS_OF_ADAPTERS = (".lora_A.", ".lora_B.", MAGNITUDE)
PREFIX = "base_model.model."  # peft's prefix of every name in its files
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class LoraSettings:
    """Which layers are adapted, and how.

    Args:
        target_modules: Layer names or globs: ``blocks.[0-4].*``, ``*.attn.qkv``. Linear layers and convolutions are adapted. Depthwise
            convolutions are skipped: peft adapts them only at ranks divisible by their number of channels.
        r: Rank.
        alpha: A weight changes by alpha/r B A. Default: r.
        dropout: Dropout on the adapters' inputs in training.
        dora: DoRA: adapters that also learn the lengths of the changed weight's rows.

    Raises:
        ParamgenError: No layers, a rank below 1, or a number that is out of range.
    """

    target_modules: list[str]
    r: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    dora: bool = False

    def __post_init__(self) -> None:
        if not self.target_modules:
            raise ParamgenError("lora.target_modules is empty; give names of layers or globs")
        require_positive("lora.", r=self.r, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise ParamgenError(f"lora.dropout is {self.dropout}, expected 0 or more and less than 1")


def lora_settings(given: LoraSettings | Mapping[str, Any] | None) -> LoraSettings | None:
    """Settings given as an object or, in a recorded configuration, as plain values."""
    try:
        return LoraSettings(**given) if isinstance(given, Mapping) else given
    except TypeError as error:
        raise ParamgenError(f"lora does not take these settings: {error}") from error


class AdapterPair(NamedTuple):
    """Names of one layer's A and B."""

    a: str
    b: str


def adaptable(network: nn.Module) -> list[str]:
    """Names of the layers that peft can adapt at any rank."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1)
        or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))  # transformers' transposed linear layer
    ]


def target_layers(network: nn.Module, settings: LoraSettings) -> list[str]:
    """The layers that the settings select, in the network's order.

    Raises:
        ParamgenError: A name or glob that matches nothing; similar names are listed.
    """
    names = adaptable(network)
    for pattern in settings.target_modules:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ParamgenError(f"lora.target_modules: {pattern!r} matches no layer. {did_you_mean(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, p) for p in settings.target_modules)]


def inject(network: nn.Module, settings: LoraSettings) -> nn.Module:
    """Add new adapters to a network, in place; its other tensors are unchanged, under ``base_layer``.

    A is drawn from torch's global seed, B is 0: the network's function is unchanged.

    Raises:
        ParamgenError: peft is not installed, or the settings match nothing.
    """
    peft = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: nn.Module = peft.inject_adapter_in_model(
            _config(settings, target_layers(network, settings)), network, ADAPTER
        )
        return adapted


def adapter_names(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the adapters' tensors, in order."""
    return [name for name in state if any(part in name for part in PARTS_OF_ADAPTERS)]


def adapter_spec(network: nn.Module) -> ParamSpec:
    """The adapters' tensors as a spec of what is generated.

    Raises:
        ParamgenError: The network has no adapters.
    """
    state = network.state_dict()
    names = adapter_names(state)
    if not names:
        raise ParamgenError("the network has no adapters; put them in with paramgen.tasks.lora.inject")
    return ParamSpec.of(state, names)


def into_adapted(plain: Mapping[str, Tensor], adapted: nn.Module) -> StateDict:
    """A plain network's weights under the names of the adapted one; adapters unchanged."""
    return {name: plain.get(name.replace(".base_layer.", "."), tensor) for name, tensor in adapted.state_dict().items()}


def plain_weights(base: Mapping[str, Tensor]) -> StateDict:
    """The plain network's weights, of those that adapters do not change."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in base.items()}


def is_magnitude(name: str) -> bool:
    """Whether a tensor is DoRA's lengths of a changed weight's rows."""
    return MAGNITUDE in name


def pairs(state: Mapping[str, Tensor]) -> Iterator[AdapterPair]:
    """A and B of every adapted layer."""
    for name in state:
        if ".lora_A." in name:
            yield AdapterPair(name, name.replace(".lora_A.", ".lora_B."))


def fix_gauge(state: Mapping[str, Tensor]) -> StateDict:
    """The same adapters with B A = U S V^T as B = U S^1/2, A = S^1/2 V^T, the largest entry of each column of U positive.

    Unique where the singular values differ. Directions whose singular value is 0 become 0.
    """
    fixed = dict(state)
    for pair in pairs(state):
        A, B = state[pair.a], state[pair.b]
        new = balanced_factors(A.flatten(1).float(), B.flatten(1).float().T)  # (r, in), (r, out)
        fixed[pair.a], fixed[pair.b] = new.x.view_as(A).to(A.dtype), new.y.T.reshape(B.shape).to(B.dtype)
    return fixed


def align_gauge(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> StateDict:
    """The same adapters, turned by the orthogonal G that brings each layer's A and B nearest to a reference's (Procrustes)."""
    aligned = dict(state)
    for pair in pairs(state):
        A, B = state[pair.a].flatten(1).double(), state[pair.b].flatten(1).double()
        near_a, near_b = reference[pair.a].flatten(1).double(), reference[pair.b].flatten(1).double()
        turn = nearest_turn(near_b.T @ B + near_a @ A.T)  # (r, r)
        aligned[pair.a] = (turn @ A).view_as(state[pair.a]).to(state[pair.a].dtype)
        aligned[pair.b] = (B @ turn.T).view_as(state[pair.b]).to(state[pair.b].dtype)
    return aligned


def write_adapter(folder: str | Path, state: Mapping[str, Tensor], settings: LoraSettings, base_name: str = "") -> Path:
    """Write adapters as a peft folder, which ``PeftModel.from_pretrained(plain_network, folder)`` loads.

    Args:
        folder: Created if it does not exist.
        state: A state dict of the adapted network; only its adapters are written.
        settings: The settings of the adapters.
        base_name: Name of the plain network, for readers of the file.

    Raises:
        ParamgenError: The state dict holds no adapters.
    """
    names = adapter_names(state)
    if not names:
        raise ParamgenError(f"no adapters to write to {folder}: no tensor name contains lora_A or lora_B")
    layers = list(dict.fromkeys(name.partition(".lora_")[0] for name in names))
    config = _config(settings, layers)
    config.base_model_name_or_path = base_name or None
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return write_adapter_folder(folder, {name: state[name] for name in names}, plain)


def write_adapter_folder(folder: str | Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """Write a peft folder with a given configuration, for example the one that an imported adapter had.

    Args:
        folder: Created if it does not exist.
        state: The adapter's tensors under the names of the adapted network.
        config: The content of ``adapter_config.json``.
    """
    write_json(Path(folder) / CONFIG, dict(config))
    write_tensors(Path(folder) / WEIGHTS, {_peft_name(name): tensor for name, tensor in state.items()})
    return Path(folder)


def read_adapter(folder: str | Path, adapted: nn.Module) -> StateDict:
    """Adapters from a peft folder, under the names of the adapted network.

    Raises:
        ParamgenError: No such folder, or the adapters are those of another network; the first tensor that differs is named.
    """
    read_json(Path(folder) / CONFIG)  # every peft folder has this file
    saved = read_tensors(Path(folder) / WEIGHTS)
    own = {_peft_name(name): name for name in adapter_names(adapted.state_dict())}
    for name in [*(saved.keys() - own.keys()), *(own.keys() - saved.keys())]:
        lacks = "the network has no such adapter" if name in saved else "it holds none for this layer"
        raise ParamgenError(f"the adapter in {folder} is for another model: {name!r}: {lacks}")
    state = {own[name]: tensor for name, tensor in saved.items()}
    adapter_spec(adapted).check(state, where=f"the adapter in {folder} is for another model")
    return state


def _peft_name(name: str) -> str:
    shortened = re.sub(rf"(\.lora_\w+)\.{ADAPTER}(?=\.|$)", r"\1", name)
    return PREFIX + (shortened.removesuffix(".weight") if is_magnitude(name) else shortened)


def _config(settings: LoraSettings, layers: list[str]) -> Any:
    alpha = settings.r if settings.alpha is None else settings.alpha
    return _peft().LoraConfig(
        target_modules=layers, r=settings.r, lora_alpha=alpha, lora_dropout=settings.dropout, use_dora=settings.dora
    )


def _peft() -> Any:
    try:
        import peft  # takes 3 s, and is an optional dependency
    except ImportError as error:
        raise ParamgenError("adapters need peft, which is not installed: pip install 'paramgen[lora]'") from error
    return peft
