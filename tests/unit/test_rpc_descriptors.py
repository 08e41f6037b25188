"""How many files a process may open: as many as it may ask for."""

import subprocess
import sys

import pytest

_SAY = """
import resource
from parley_rpc.descriptors import allow_many
allow_many()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "then"), [(100, 2000, 2000), (100, 100, 100)])
def test_process_may_open_as_many_files_as_the_system_lets_it(soft: int, hard: int, then: int) -> None:
    limited = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limited, "-", sys.executable, "-c", _SAY], capture_output=True, text=True, check=True
    )
    assert [then, hard] == [int(word) for word in done.stdout.split()]
