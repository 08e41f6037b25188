"""The same suite once more, with every service in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_end_to_end_suite_passes_where_services_run_apart() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--ignore={FOLDER / 'test_apart.py'}", str(FOLDER)],
        cwd=FOLDER.parents[1],
        env={**os.environ, "PARLEY_NODE": "split"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == run.returncode, run.stdout[-8000:]
