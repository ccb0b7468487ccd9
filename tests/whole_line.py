"""From a zoo to generated networks in one call, for tests of whole lines."""

from pathlib import Path
from typing import Any

import paramgen
from paramgen.core.zoo import Zoo


def fitted_samples(config: str, learnt: Zoo, out: Path, **requested: Any) -> Path:
    """A folder of networks of a shipped generator config that was fitted for a few steps; `requested`: arguments of ``sample``."""
    fit = out.with_name(f"{out.name}_fit")
    quiet = {"trainer.logger": False, "trainer.enable_progress_bar": False, "quality.sample_every": 0}
    paramgen.fit(config, {"trainer.max_steps": 6, "checkpoint.dirpath": str(fit), **quiet}, zoo=learnt)
    return paramgen.sample(str(fit / "last.ckpt"), out=str(out), **requested)
