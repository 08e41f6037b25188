"""What processes take of the processors, by the kernel's own count (proc_pid_stat(5))."""

import os
from pathlib import Path

from tests.support.deaths import children

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM = range(11, 15)
"""Where a line of ``/proc/PID/stat`` has them, counted behind the name; the last two are of children that have ended."""


def seconds(pid: int) -> float:
    """The seconds of one core that a process has taken so far, with all that it started; 0 where it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    own = sum(int(fields[place]) for place in (_USER, _SYSTEM, _ENDED_USER, _ENDED_SYSTEM)) / _TICKS_PER_S
    return own + sum(map(seconds, children(pid)))
