"""ONNX: graphs with their weights, for runtimes without PyTorch."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from paramgen.core.io import replacing
from paramgen.errors import ParamgenError, one_line
from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState


def prepare_onnx(source: ExportSource) -> Writer:
    """A file a network, with the input ``input``, the output ``output`` and a free batch size.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ParamgenError: The network takes something other than one tensor.
    """
    import onnx  # noqa: F401  # so that a missing one is named before anything is written
    import onnxscript  # noqa: F401

    example = _example(source)
    batch = torch.export.Dim("batch")

    def write(network: NamedState, path: Path) -> Path:
        file = path.parent / f"{path.name}.onnx"
        program = _program(source.loaded(network.state, network.name), example, batch)
        with replacing(file, sync=False) as opened:
            opened.write(program.model_proto.SerializeToString())
        return file

    return Writer(
        write,
        "import onnxruntime\noutputs = onnxruntime.InferenceSession('{path}').run(None, {'input': images.numpy()})",
    )


def _program(network: torch.nn.Module, example: Tensor, batch: torch.export.Dim) -> torch.onnx.ONNXProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about opset versions and torch's own code
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise ParamgenError(f"ONNX has no form for {type(network).__name__}: {one_line(error)}") from error
    assert program is not None  # None only of the older exporter
    return program


def _example(source: ExportSource) -> Tensor:
    """An input of the network (2, ...): of the task's shape, else from its data."""
    shape = getattr(source.family, "in_shape", None)
    if shape is not None:
        dtype = next((p.dtype for p in source.network.parameters() if p.is_floating_point()), torch.float32)
        return torch.zeros(2, *shape, dtype=dtype)
    inputs: object = next(iter(source.family.task(source.family.names[0]).items("train").batches(2)))[0]
    if not isinstance(inputs, Tensor):
        raise ParamgenError(
            f"{source.what}: ONNX export needs networks that take one tensor, got {type(inputs).__name__}"
        )
    return inputs
