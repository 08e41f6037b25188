"""The same suite once more, with every service in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LEFT_OUT = ("test_apart.py", Path(__file__).name)
"""What runs apart anyway."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_end_to_end_suite_passes_where_services_run_apart() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "",
            *(f"--ignore={FOLDER / name}" for name in LEFT_OUT),
            str(FOLDER),
        ],
        cwd=FOLDER.parents[1],
        env={**os.environ, "PARLEY_NODE": "split"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == run.returncode, run.stdout[-8000:]
