"""``paramgen adapters``: export generated adapters as peft folders; short for ``paramgen export --format peft``."""

from pathlib import Path

from paramgen.cli.commands import export


def main(samples: str, zoo: str, out: str, overwrite: bool = False, trust: bool = False) -> Path:
    """Export generated adapters for peft: one folder per adapter, and the base network.

    Args:
        samples: Output folder of `paramgen sample`.
        zoo: The zoo of adapters that the generator was fitted on.
        out: Output folder: base.safetensors, and network_0000, network_0001, …, each for PeftModel.from_pretrained(network, folder).
        overwrite: Replace an existing output folder of this command.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: The zoo holds complete networks, or the samples belong to another network.
    """
    return export.main("peft", samples, zoo, out, overwrite=overwrite, trust=trust)
