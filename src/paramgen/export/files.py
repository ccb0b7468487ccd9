"""Plain state dicts: ``.safetensors`` and ``.pth`` files."""

from pathlib import Path

import torch

from paramgen.core.io import replacing, write_tensors
from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState


def prepare_safetensors(source: ExportSource) -> Writer:
    """One safetensors file a network."""

    def write(network: NamedState, path: Path) -> Path:
        file = path.parent / f"{path.name}.safetensors"
        write_tensors(file, network.state)
        return file

    return Writer(write, "from safetensors.torch import load_file\nstate = load_file('{path}')")


def prepare_pth(source: ExportSource) -> Writer:
    """One file of torch.save a network; it holds tensors alone."""
    return Writer(save_state, "import torch\nstate = torch.load('{path}', weights_only=True)")


def save_state(network: NamedState, path: Path) -> Path:
    """Write the state dict of a network for ``torch.load(weights_only=True)``."""
    file = path.parent / f"{path.name}.pth"
    with replacing(file, sync=False) as opened:
        torch.save(network.state, opened)
    return file
