"""Damaged files of every kind are read or refused; see fuzz.py, which `make fuzz` runs for longer."""

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def test_damaged_files_raise_nothing_but_paramgen_errors():
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--count", "250"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if " inputs" in line]
    assert len(rows) == 10
    assert all(" 250 inputs" in row and " 0 foreign" in row for row in rows)
