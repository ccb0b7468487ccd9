"""Target networks by name: the papers' small ones, timm's, torchvision's, or any importable class.

The papers' networks are fixed by their parameter counts (docs/tasks.md): p-diff's (Wang et al. 2024, arXiv:2402.13144, section 3.3
and Table 3) and RPG's (Wang et al. 2025, arXiv:2501.11587), whose two CNNs come from the model zoos of Schürholt et al. 2022.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from paramgen.core.params import with_versions
from paramgen.core.trust import HOW, SOMEWHERE, UntrustedError, import_class, refusal
from paramgen.errors import ParamgenError, arguments_for, did_you_mean, first_line, one_line
from paramgen.tasks.published import require_timm_weights
from paramgen.tasks.weights import load_weights_file

Shape = tuple[int, int, int]


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        num_classes: Outputs.
        in_shape: Channels, height, width of an image.
        hidden: Width of every hidden layer. The default on 8x8 digits is 64-48-32-10, 5,018 parameters.
        first_bias: Whether the first layer has a bias. p-diff's MLP-3 has none on CIFAR-10.
    """

    def __init__(
        self, num_classes: int, in_shape: Shape, hidden: Sequence[int] = (48, 32), first_bias: bool = True
    ) -> None:
        super().__init__()
        sizes = [prod(in_shape), *hidden, num_classes]
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=first_bias or i > 0) for i, (a, b) in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        x = x.flatten(1)  # (B, C*H*W)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        logits: Tensor = self.layers[-1](x)
        return logits


class ConvNet3(nn.Module):
    """p-diff's ConvNet-3: three blocks of 3x3 convolution, batch norm, ReLU and halving, then one linear layer.

    Args:
        num_classes: Outputs.
        in_shape: Channels, height, width of an image; 32x32 gives the paper's 512 features.
        width: Channels of every convolution.
    """

    def __init__(self, num_classes: int, in_shape: Shape, width: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_shape[0] if i == 0 else width, width, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.classifier = nn.Linear(width * (in_shape[1] // 8) * (in_shape[2] // 8), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(F.max_pool2d(norm(conv(x)), 2))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


class DigitsCNN(nn.Module):
    """A small batch-norm CNN for 8x8 digits: two halving blocks, one more, one linear layer.

    Args:
        num_classes: Outputs.
        in_shape: Channels, height, width of an image.
        channels: Channels of every 3x3 convolution; the first two blocks halve the image.
    """

    def __init__(self, num_classes: int, in_shape: Shape, channels: Sequence[int] = (8, 16, 16)) -> None:
        super().__init__()
        widths = [in_shape[0], *channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in channels)
        halvings = 2 ** min(2, len(channels))
        self.classifier = nn.Linear(channels[-1] * (in_shape[1] // halvings) * (in_shape[2] // halvings), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            x = F.relu(F.max_pool2d(x, 2) if i < 2 else x)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


class ZooCNN(nn.Module):
    """Three convolutions and two linear layers, after the model zoos of Schürholt et al.; RPG's CNN-small and CNN-medium.

    Args:
        num_classes: Outputs.
        in_shape: Channels, height, width of an image; 28x28 is usual for the small one, 32x32 for the medium one.
        channels: Channels of the three convolutions.
        kernels: Their kernel sizes, without padding.
        pools: Whether each is followed by halving.
        hidden: Width of the first linear layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: Shape,
        channels: Sequence[int] = (8, 6, 4),
        kernels: Sequence[int] = (5, 5, 2),
        pools: Sequence[bool] = (True, True, False),
        hidden: int = 20,
    ) -> None:
        super().__init__()
        widths, (height, width) = [in_shape[0], *channels], in_shape[1:]
        self.pools = list(pools)
        self.convs = nn.ModuleList()
        for a, b, kernel, pool in zip(widths, channels, kernels, pools, strict=False):
            self.convs.append(nn.Conv2d(a, b, kernel))
            height, width = ((n - kernel + 1) // (2 if pool else 1) for n in (height, width))
        if min(height, width) < 1:
            raise ParamgenError(f"images of {in_shape[1]}x{in_shape[2]} are too small for this network")
        self.hidden = nn.Linear(channels[-1] * height * width, hidden)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, num_classes)."""
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = conv(x)
            x = F.relu(F.max_pool2d(x, 2) if pool else x)
        logits: Tensor = self.classifier(F.relu(self.hidden(x.flatten(1))))
        return logits


NETWORKS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "mlp": (MLP, {}),
    "mlp3": (MLP, {"hidden": (50, 25), "first_bias": False}),
    "convnet3": (ConvNet3, {}),
    "cnn_small": (ZooCNN, {}),
    "cnn_medium": (
        ZooCNN,
        {"channels": (16, 32, 15), "kernels": (3, 3, 3), "pools": (True, True, True)},
    ),
    "cnn_digits": (DigitsCNN, {}),
}
"""Networks of this module by name, with the arguments that make them the papers'."""


LOADING = {
    "cache_dir",
    "checkpoint",
    "checkpoint_path",
    "pretrained",
    "pretrained_backbone",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "weights",
    "weights_backbone",
}
"""Arguments of timm's and torchvision's networks, and of :func:`build_network`, that read or fetch weights."""

_PLACE = re.compile(r"://|[/\\]|^(hf[-_]hub|local[-_]dir):")  # in a string: an address or a path


def check_named_network(name: str, network_args: Mapping[str, Any], where: str = SOMEWHERE) -> None:
    """Refuse the network of a file where building it would import a class, or read or fetch weights.

    Args:
        name: As of :func:`build_network`.
        network_args: Further arguments of the network.
        where: The file, for messages.

    Raises:
        UntrustedError: It is none of :data:`NETWORKS`, timm's or torchvision's, or an argument names a file or an address.
    """
    source, _, model = name.partition(":")
    ours = {f"{make.__module__}.{make.__name__}" for make, _ in NETWORKS.values()}
    if source in ("timm", "torchvision") and re.fullmatch(r"[\w.-]+", model) is None:
        raise UntrustedError(f"{where} names the network {name!r}, which would be read or fetched: that needs {HOW}")
    if source not in ("timm", "torchvision") and "." in name and name not in ours:
        raise refusal(name, where)
    for key, value in network_args.items():
        if (key in LOADING and value not in (None, False)) or _names_place(value):
            raise UntrustedError(
                f"{where} gives network {name!r} the argument {key}={value!r}, which may read or fetch a file: that needs {HOW}"
            )


def _names_place(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_names_place(v) for item in value.items() for v in item)
    if isinstance(value, list | tuple):
        return any(map(_names_place, value))
    return isinstance(value, str) and _PLACE.search(value) is not None


def build_network(
    name: str,
    num_classes: int,
    in_shape: Shape,
    /,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    **network_args: Any,
) -> nn.Module:
    """A network by name.

    Args:
        name: One of :data:`NETWORKS`, ``timm:NAME``, ``torchvision:NAME``, or ``package.module.Class``.
        num_classes: Outputs.
        in_shape: Channels, height, width of an image.
        pretrained: Start from the weights that timm or torchvision publish; a classifier of another size stays random.
        checkpoint: Start from a weights file (``.safetensors``, or ``.pt``/``.pth``/``.ckpt`` that hold tensors only).
        **network_args: Further arguments of the network's class.

    Raises:
        ParamgenError: Unknown name or argument, or a checkpoint that does not fit.
    """
    source, _, model = name.partition(":")
    if source == "timm" and model:
        network = _timm(model, num_classes, in_shape, pretrained, network_args)
    elif source == "torchvision" and model:
        network = _torchvision(model, num_classes, pretrained, network_args)
    elif pretrained:
        raise ParamgenError(
            f"network {name!r} has no published weights; pretrained needs timm:NAME or torchvision:NAME"
        )
    elif name in NETWORKS:
        make, defaults = NETWORKS[name]
        network = _call(make, name, {"num_classes": num_classes, "in_shape": in_shape}, defaults | network_args)
    else:
        network = _imported(name, num_classes, in_shape, network_args)
    _give_shapes(network, in_shape)
    if checkpoint is not None:
        load_weights_file(network, checkpoint)
    return network


def _give_shapes(network: nn.Module, in_shape: Shape) -> None:
    """Run lazily shaped layers once, so that they have parameters."""
    if not any(is_lazy(tensor) for tensor in [*network.parameters(), *network.buffers()]):
        return
    modes = [(module, module.training) for module in network.modules()]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *in_shape))
    for module, training in modes:
        module.training = training


def _timm(model: str, num_classes: int, in_shape: Shape, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    import timm  # 3 s

    if not timm.is_model(model):
        raise ParamgenError(f"Unknown timm network {model!r}. {did_you_mean(model, timm.list_models())}")
    if pretrained:
        require_timm_weights(model)
    return _call(
        timm.create_model,
        f"timm:{model}",
        {"model_name": model, "pretrained": pretrained, "num_classes": num_classes, "in_chans": in_shape[0]},
        args,
    )


def _torchvision(model: str, num_classes: int, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    from torchvision import models

    available = models.list_models()
    if model not in available:
        raise ParamgenError(f"Unknown torchvision network {model!r}. {did_you_mean(model, available)}")
    if "weights_backbone" in signature(models.get_model_builder(model)).parameters:
        args = {"weights_backbone": None, **args}  # torchvision fetches them by default
    network = _call(models.get_model, f"torchvision:{model}", {"name": model, "num_classes": num_classes}, args)
    if pretrained:
        weights = models.get_model_weights(model).DEFAULT
        try:
            published = weights.get_state_dict(progress=False, weights_only=True)
        except OSError as error:
            raise ParamgenError(
                f"the weights of torchvision:{model} cannot be fetched ({one_line(error)}); put {weights.url} in "
                f"{torch.hub.get_dir()}/checkpoints"
            ) from error
        own = network.state_dict()
        fitting = {k: v for k, v in published.items() if k in own and v.shape == own[k].shape}
        network.load_state_dict(with_versions(fitting, network), strict=False)
    return network


def _imported(name: str, num_classes: int, in_shape: Shape, args: dict[str, Any]) -> nn.Module:
    """An instance of ``package.module.Class``; `num_classes` and `in_shape` are passed where its signature has them."""
    if "." not in name:
        raise ParamgenError(
            f"Unknown network {name!r}. {did_you_mean(name, NETWORKS)} timm:NAME, torchvision:NAME and package.module.Class work too."
        )
    make = import_class(name, nn.Module, "network")
    offered = {"num_classes": num_classes, "in_shape": in_shape}
    accepted = {k: v for k, v in offered.items() if k in signature(make).parameters and k not in args}
    with arguments_for(f"network {name!r}"):
        return make(**accepted, **args)


def _call(make: Callable[..., nn.Module], name: str, given: dict[str, Any], args: Mapping[str, Any]) -> nn.Module:
    """Call a builder of paramgen, timm or torchvision; its errors are reported as mistakes in the arguments."""
    if twice := sorted(given.keys() & args.keys()):
        raise ParamgenError(f"network {name!r}: {twice[0]} is set by the task; leave it out of network_args")
    try:
        return make(**given, **args)
    except ParamgenError:
        raise
    except Exception as error:  # each library raises different errors
        raise ParamgenError(f"network {name!r} does not take these arguments: {first_line(error)}") from error
