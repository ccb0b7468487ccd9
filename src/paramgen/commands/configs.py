"""``paramgen configs``: what is shipped."""

from pathlib import Path

from paramgen.paths import find_config, list_configs


def main(show: str | None = None, folder: str = "") -> None:
    """List the shipped configs, or print one.

    Args:
        show: Name of a config to print; a list of all when left out.
        folder: ``zoo`` for the recipes of ``collect``; both kinds are listed when left out.
    """
    if show is not None:
        print(Path(find_config(show, folder)).read_text(), end="")
        return
    for title, kind in (("paramgen fit --config NAME", ""), ("paramgen collect --config NAME", "zoo")):
        if folder in ("", kind):
            print(title)
            known = list_configs(kind)
            width = max(map(len, known), default=0)
            for name, path in known.items():
                print(f"  {name:{width}s}  {_summary(path)}")


def _summary(path: Path) -> str:
    """The first line of a config, which says what it is."""
    return path.read_text().split("\n", 1)[0].removeprefix("#").strip()
