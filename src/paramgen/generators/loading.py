"""Load fitted generators from their checkpoints alone."""

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from paramgen.core.arguments import check_arguments
from paramgen.core.codec import ParamCodec
from paramgen.core.devices import usable_device
from paramgen.core.trust import find_class
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.restore import build, read_checkpoint

if TYPE_CHECKING:  # it imports Lightning, which takes seconds: only once a checkpoint has been read
    from paramgen.generators.base import ParameterGenerator


def load_generator(path: str | Path, device: str = "cpu", trust: bool = False) -> "ParameterGenerator":
    """A fitted generator from its checkpoint alone: no YAML, no zoo.

    Lightning's ``load_from_checkpoint`` is not used: it imports what a checkpoint names.

    Args:
        path: A ``.ckpt`` written by ``paramgen fit``, a file or a folder of shards; or ``hf://owner/name``.
        device: Where to put it.
        trust: Import a backend or codec that is not part of paramgen, nor registered by an installed package.

    Raises:
        UntrustedError: The checkpoint names such a class, and `trust` is false.
        ParamgenError: No such file or device, no checkpoint of paramgen, a backend that does not exist or does not fit.
    """
    usable_device(device)
    checkpoint = read_checkpoint(path, parts=("state_dict",))
    from paramgen.generators.base import ParameterGenerator

    where, saved = f"checkpoint {str(path)!r}", checkpoint["paramgen"]
    import_module("paramgen.backends")  # registers them; it imports this module
    backend = find_class(saved["class_path"], ParameterGenerator, "backend", trust, where)  # type: ignore[type-abstract]
    takes = signature(backend).parameters
    given = checkpoint.get("hyper_parameters", {})  # of the backend; in files of the command line also of the data
    arguments = {name: value for name, value in given.items() if name in takes}
    check_arguments(backend, arguments, f"{where}: {backend.__name__}")
    find_class(saved["codec"]["class_path"], ParamCodec, "codec", trust, where)  # type: ignore[type-abstract]  # imports it
    model = build(backend, arguments, checkpoint["state_dict"], where)
    try:
        model.on_load_checkpoint(checkpoint)
    except ParamgenError as error:
        raise type(error)(f"{where}: {error}") from error
    return model.to(device).eval()


def load_conditional(path: str | Path, zoo: Zoo) -> "ParameterGenerator":
    """A fitted generator that writes a zoo's tensors from a task's condition.

    Args:
        path: Its checkpoint.
        zoo: The zoo that it was fitted on, or one of the same architecture. If opened with `trust`, the checkpoint is trusted too.

    Raises:
        ParamgenError: As :func:`load_generator`; it generates other tensors, or was fitted without conditions.
    """
    model = load_generator(path, trust=zoo.trust)
    check_conditional(model, zoo, f"checkpoint {str(path)!r}")
    return model


def check_conditional(model: "ParameterGenerator", zoo: Zoo, name: str = "the checkpoint") -> None:
    """Raise ParamgenError unless a generator writes a zoo's tensors from a task's condition.

    Args:
        model: The generator.
        zoo: The zoo that it was fitted on, or one of the same architecture.
        name: Names it in the message.
    """
    if model.codec is None or model.codec.spec != zoo.spec:
        raise ParamgenError(f"{name} generates other tensors than zoo {zoo.name!r} holds")
    if model.cond_dim == len(model.prompts):
        raise ParamgenError(f"{name} takes no condition: its generator was fitted on a zoo without tasks")
