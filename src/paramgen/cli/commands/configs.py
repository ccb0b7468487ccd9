"""``paramgen configs``: the shipped configs."""

from pathlib import Path

from paramgen.core.paths import CONFIG_KINDS, DEVICE_CONFIGS, list_configs
from paramgen.errors import ParamgenError, did_you_mean


def main(show: str | None = None, folder: str | None = None) -> None:
    """List the shipped configs, or print one.

    Args:
        show: Name of a config to print. Default: list all.
        folder: ``zoo`` for recipes of ``collect``, ``compare`` for comparisons, ``trainer`` for devices, an empty name for generators.
            Default: all.

    Raises:
        ParamgenError: Unknown folder or config; close names are listed.
    """
    if folder is not None and folder not in CONFIG_KINDS:
        raise ParamgenError(f"Unknown config folder {folder!r}. {did_you_mean(folder, filter(None, CONFIG_KINDS))}")
    folders = [f for f in CONFIG_KINDS if folder in (None, f)]
    if show is not None:
        available = {name: path for f in reversed(folders) for name, path in list_configs(f).items()}
        short = Path(show).name.removesuffix(".yaml")
        if short not in available:
            raise ParamgenError(f"Unknown config {show!r}. {did_you_mean(short, available)}")
        print(available[short].read_text(encoding="utf-8"), end="")
        return
    for kind in folders:
        available = list_configs(kind)
        if kind == DEVICE_CONFIGS:
            available = {f"{kind}/{name}": path for name, path in available.items()}
        also = " --config GENERATOR" if kind == DEVICE_CONFIGS else ""
        print(f"paramgen {CONFIG_KINDS[kind]}{also} --config NAME")
        width = max(map(len, available), default=0)
        for name, path in available.items():
            print(f"  {name:{width}s}  {_summary(path)}")


def _summary(path: Path) -> str:
    """The first line of a config, its description."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()
