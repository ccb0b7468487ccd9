"""peft: adapter folders, and the plain network that they belong to."""

from pathlib import Path
from typing import Any

from paramgen.core.io import write_tensors
from paramgen.core.params import StateDict
from paramgen.core.zoo import BASE
from paramgen.errors import ParamgenError
from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState, find_part
from paramgen.tasks.lora import plain_weights, write_adapter, write_adapter_folder


def prepare_peft(source: ExportSource) -> Writer:
    """An adapter folder a network; with the first one, the plain network's weights in ``base.safetensors``.

    An imported zoo of adapters has no network: its adapters get the configuration of the first one that was imported.
    Of a network of one's own around one of transformers, both are the inner one's.

    Raises:
        ImportError: peft is not installed.
        ParamgenError: The networks are not adapters.
    """
    if source.zoo.task_config is None and (config := source.zoo.meta["recipe"].get("adapter")) is not None:
        return _of_imported(dict(config))
    import peft  # noqa: F401  # so that a missing one is named before anything is written
    from transformers import PreTrainedModel  # peft needs it too

    settings = source.family.lora
    if settings is None:
        raise ParamgenError(
            f"{source.what} holds complete networks, not adapters; use another format, or a zoo collected with lora"
        )

    part = find_part(source.network, PreTrainedModel)
    prefix = "" if part is None else part.prefix

    def write(network: NamedState, path: Path) -> Path:
        if not (path.parent / BASE).exists():
            write_tensors(path.parent / BASE, _without(prefix, plain_weights(source.zoo.base())))
        return write_adapter(path, _without(prefix, network.state), settings, base_name=source.network_name)

    return Writer(
        write,
        "from peft import PeftModel\nfrom safetensors.torch import load_file\n"
        "network.load_state_dict(load_file('{parent}/base.safetensors'))  # network: the plain one\n"
        "adapted = PeftModel.from_pretrained(network, '{path}')",
    )


def _of_imported(config: dict[str, Any]) -> Writer:
    """An adapter folder a network, for a zoo that was imported from adapter folders: the first one's configuration for all."""

    def write(network: NamedState, path: Path) -> Path:
        return write_adapter_folder(path, network.state, config)

    return Writer(
        write,
        f"from peft import PeftModel\nadapted = PeftModel.from_pretrained(network, '{{path}}')"
        f"  # network: {config.get('base_model_name_or_path') or 'the plain one'}",
    )


def _without(prefix: str, state: StateDict) -> StateDict:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
