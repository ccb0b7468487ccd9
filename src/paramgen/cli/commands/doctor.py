"""``paramgen doctor``: check the installation and suggest fixes."""

import importlib
import importlib.metadata
import platform
import shutil
from collections.abc import Callable

from paramgen import __version__
from paramgen.core.counting import counted
from paramgen.core.plugins import load_plugins
from paramgen.errors import ParamgenError, first_line

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "diffusers", "jsonargparse", "safetensors", "scikit-learn")
_OPTIONAL = {
    "mamba_ssm": "fused Mamba kernels; pip install --no-build-isolation 'paramgen[cuda]' on a CUDA machine",
    "bitsandbytes": "8-bit AdamW; pip install 'paramgen[adamw8bit]'",
    "peft": "adapters; pip install 'paramgen[lora]'",
}


class FaultyInstallationError(ParamgenError):
    """A dependency is missing or broken."""

    exit_code = 1


def main() -> None:
    """Check this installation and suggest fixes. The exit code is 1 if it has a fault.

    Raises:
        FaultyInstallationError: A package is missing, or a check failed.
    """
    print(f"paramgen {__version__}, Python {platform.python_version()}, {platform.platform()}")
    versions = {package: _version(package) for package in _PACKAGES}
    for package, version in versions.items():
        print(f"  {package:14s}{version}")
    checks: dict[str, Callable[[], str]] = {
        "torch and torchvision match": _torchvision,
        "accelerator": _accelerator,
        "processes (gloo)": _distributed,
        "disk": _disk,
    }
    results = {name: check() for name, check in checks.items()}
    for name, answer in results.items():
        print(f"  {name}: {answer}")
    for module, what in _OPTIONAL.items():
        print(f"  {module}: {_optional(module, what)}")
    for plugin in load_plugins():
        print(f"  {plugin.kind} {plugin.name!r} of {plugin.package}: {plugin.problem or 'yes'}")
    faults = [name for name, version in versions.items() if version.startswith("missing")]
    faults += [name for name, answer in results.items() if answer.split()[0].rstrip(":") == "no"]
    if faults:
        raise FaultyInstallationError(f"The installation is faulty: {', '.join(faults)}. See the lines above.")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing; pip install {package}"


def _torchvision() -> str:
    try:
        importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError) as error:
        return (
            f"no ({first_line(error)}): these builds are incompatible; timm and lightning fail with them. Run "
            "pip install --force-reinstall torch torchvision from one index"
        )
    return "yes"


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
    return (
        "mps" if torch.backends.mps.is_available() else f"none, CPU with {counted(torch.get_num_threads(), 'thread')}"
    )


def _distributed() -> str:
    import torch.distributed

    return (
        "yes"
        if torch.distributed.is_available() and torch.distributed.is_gloo_available()
        else "no: this torch has no gloo"
    )


def _disk() -> str:
    return f"{shutil.disk_usage('.').free / 1e9:.0f} GB free here"


def _optional(module: str, what: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken CUDA build may raise any error
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        return f"not installed ({what})" if missing else f"installed but broken ({error})"
    return "yes"
