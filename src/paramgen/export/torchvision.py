"""torchvision: state dicts of the networks of ``torchvision.models``."""

from pathlib import Path

from torchvision import models

from paramgen.export.files import save_state
from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState


def prepare_torchvision(source: ExportSource) -> Writer:
    """A ``.pth`` file a network.

    Raises:
        ParamgenError: The networks are not torchvision's.
    """
    source.refuse_adapters("torchvision")
    library, _, name = source.network_name.partition(":")
    if library != "torchvision" or name not in models.list_models():
        raise source.wrong_library("torchvision")
    arguments = {"num_classes": getattr(source.family, "num_classes", None), **source.network_args}
    arguments.pop("in_shape", None)  # ScorerTask has it among the arguments
    given = "".join(f", {key}={value!r}" for key, value in arguments.items() if value is not None)

    def write(network: NamedState, path: Path) -> Path:
        # the library's own keys and order, extra state included
        return save_state(NamedState(network.name, source.loaded(network.state, network.name).state_dict()), path)

    return Writer(
        write,
        "import torch\nimport torchvision\n"
        f"network = torchvision.models.get_model({name!r}, weights=None{given})\n"
        "network.load_state_dict(torch.load('{path}', weights_only=True))",
    )
