"""``paramgen adapters``: export generated adapters as peft folders."""

from pathlib import Path

from paramgen.core.io import read_tensors, write_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import family_of
from paramgen.tasks.lora import write_adapter


def main(samples: str, zoo: str, out: str, trust: bool = False) -> None:
    """Export generated adapters for peft: one folder per adapter, and the base network.

    Args:
        samples: Output folder of `paramgen sample`.
        zoo: The zoo of adapters that the generator was fitted on.
        out: Output folder: base.safetensors, and 0000, 0001, …, each for PeftModel.from_pretrained(network, folder).
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: The zoo holds complete networks, or the samples belong to another network.
    """
    opened = Zoo(zoo, trust)
    family = family_of(opened)
    if family.lora is None:
        raise ParamgenError(f"zoo {opened.name!r} contains complete networks, not adapters")
    base = {n.replace(".base_layer.", "."): t for n, t in opened.base().items()}
    write_tensors(Path(out) / "base.safetensors", base)
    name = str(getattr(family, "network", ""))
    files = sorted(Path(samples).glob("*.safetensors"))
    if not files:
        raise ParamgenError(f"no .safetensors file in {samples!r}; draw networks with paramgen sample")
    for i, file in enumerate(files):
        state = read_tensors(file)
        opened.spec.check(state, where=str(file))
        write_adapter(Path(out) / f"{i:04d}", state, family.lora, base_name=name)
    print(f"{len(files)} adapters of {opened.spec.numel:,} parameters, and the network they belong to, in {out}")
