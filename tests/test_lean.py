import json
import subprocess
import sys

import torch

SCRIPT = """
import json, sys
from paramgen import lean
{install}
import lightning.pytorch
loaded = [name for name in ("scipy", "matplotlib", "torchvision", "transformers") if sys.modules.get(name)]
import torchvision, scipy.stats
from torchmetrics.aggregation import MeanMetric
mean = MeanMetric()
mean.update(3.0)
print(json.dumps([loaded, float(mean.compute()), "triton" in sys.modules]))
"""


def test_lightning_comes_without_packages_that_a_fit_never_uses_and_they_can_be_imported_later():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(install="lean.install(); lean.install()")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], 3.0, torch.accelerator.is_available()]
    assert "triton" not in done.stderr


def test_importing_paramgen_alone_changes_no_import():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; before = list(sys.meta_path); import paramgen; print(sys.meta_path == before)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
