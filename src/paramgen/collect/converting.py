"""``paramgen zoo convert``: pickles of one's own as safetensors. Their code runs in a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from paramgen.core.counting import counted
from paramgen.core.weight_files import is_aside, natural_order
from paramgen.errors import ParamgenError

_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
REPORT, JOB = "report.json", "job.json"  # files between the two processes


def convert(source: str, out: str, key: str | None = None, trust: bool = False) -> None:
    """Write the weights of pickles that hold objects of other classes as safetensors, which `zoo import` reads.

    Whole networks (``torch.save(network)``) and checkpoints with configurations of any class are read. This runs code that the files name.

    Args:
        source: A file, or a folder of .pt, .pth, .ckpt, .bin, .pkl and .pickle files.
        out: Folder of the safetensors files.
        key: Which of several state dicts of a checkpoint, for example state_dict_ema.
        trust: Run the code that the files name, in a process of its own. Use only for files that you made, or from people you trust.

    Raises:
        ParamgenError: `trust` is not given, no such files, two that differ in their suffix alone, or files that hold no state dict; the
            others are written.
    """
    path = Path(source)
    if not path.exists():
        raise ParamgenError(f"no file or folder {source!r}")
    found = [p for p in path.iterdir() if p.suffix in _PICKLES and not is_aside(p)] if path.is_dir() else [path]
    files = sorted(found, key=lambda file: natural_order(file.name))
    if not files:
        raise ParamgenError(f"no {', '.join(_PICKLES)} file in {source!r}")
    stem, times = Counter(file.stem for file in files).most_common(1)[0]
    if times > 1:
        alike = " and ".join(file.name for file in files if file.stem == stem)
        raise ParamgenError(f"{alike} would all become {stem}.safetensors; convert them to different folders")
    if not trust:
        raise ParamgenError(
            f"reading {files[0]} may run code that it names: give --trust if you made these files or trust their author"
        )
    report = _in_own_process(files, Path(out), key)
    for name, why in report.items():
        if why is not None:
            print(f"{name}: {why}", file=sys.stderr)
    failed = [name for name, why in report.items() if why is not None]
    print(f"{len(report) - len(failed)} of {counted(len(files), 'file')} converted, in {out}")
    if failed:
        raise ParamgenError(
            f"{len(failed)} of {counted(len(files), 'file')} could not be converted: {failed[0]}: {report[failed[0]]}"
        )


def _in_own_process(files: list[Path], out: Path, key: str | None) -> dict[str, str | None]:
    """Convert each file; why it could not be, by name."""
    with TemporaryDirectory() as folder:
        job = {"files": [str(file.resolve()) for file in files], "out": str(out.resolve()), "key": key}
        (Path(folder) / JOB).write_text(json.dumps(job))
        # the working folder is on the path of `python -m`, so that classes of the user's modules are found; what they print is no result
        done = subprocess.run([sys.executable, "-m", "paramgen.collect.unpickling", folder], stdout=2, check=False)
        report = Path(folder) / REPORT
        if not report.exists():
            raise ParamgenError(
                f"the process that reads {files[0].parent} ended with {done.returncode} and gave no reason"
            )
        result: dict[str, str | None] = json.loads(report.read_text(encoding="utf-8"))
    return result
