"""Where processes die or stand still: plans drawn from a seed, an entry for each start of a process."""

import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from parley_node.split import ApartNode

_OF_ALL = {"{}.relay.before_commit": 9, "{}.relay.after_commit": 9}
_APPLY = {"{}.apply.before_commit": 3, "{}.apply.after_commit": 3}
_POINTS: Mapping[str, Mapping[str, int]] = {
    "broker": {
        **dict.fromkeys(("after_create", "after_lease_exchange", "after_introduce"), 1),
        **dict.fromkeys(("matched.before_commit", "matched.after_commit"), 1),
        **dict.fromkeys(("after_lease", "after_decide", "after_release", "before_settle", "after_settle"), 8),
        **dict.fromkeys(("before_finish", "after_finish", "after_reopen"), 4),
        **dict.fromkeys(("before_acknowledge", "after_acknowledge"), 4),
        **dict.fromkeys(("decided.before_commit", "decided.after_commit"), 4),
        **dict.fromkeys(("AcknowledgeDeliveries.before_commit", "AcknowledgeDeliveries.after_commit"), 2),
        **dict.fromkeys(("unsettled.before_commit", "unsettled.after_commit"), 1),
        **dict.fromkeys(("postpone.before_commit", "postpone.after_commit"), 1),
        "before_send": 99,
    },
    "consent": {
        "before_settle": 9,
        "after_settle": 9,
        **dict.fromkeys(("Ask.before_commit", "Ask.after_commit"), 3),
        **dict.fromkeys(("AcceptOffer.before_commit", "AcceptOffer.after_commit"), 3),
        **dict.fromkeys(("WithdrawConsent.before_commit", "WithdrawConsent.after_commit"), 2),
        **dict.fromkeys(("DeleteRule.before_commit", "DeleteRule.after_commit"), 1),
        **dict.fromkeys(("Object.before_commit", "Object.after_commit"), 2),
        **dict.fromkeys(("EndConsents.before_commit", "EndConsents.after_commit"), 2),
        **dict.fromkeys(("LiftObjection.before_commit", "LiftObjection.after_commit"), 1),
        **dict.fromkeys(("notices.before_commit", "notices.after_commit"), 3),
        **dict.fromkeys(("PauseConsent.before_commit", "PauseConsent.after_commit"), 4),
        **dict.fromkeys(("ResumeConsent.before_commit", "ResumeConsent.after_commit"), 4),
    },
    "identity": {"after_introduce": 1, "after_sign_in": 3},
    "vault": {"after_match": 1, "after_release": 9},
    "audit": dict.fromkeys(
        ("grow.before_commit", "grow.after_commit", "publish.before_commit", "publish.after_commit"), 8
    ),
}
_RELAYED = 20
"""Turns of a relay: two seconds where it has something to do."""
_READS = ("broker", "consent", "audit")


def points(service: str) -> dict[str, int]:
    """The fault points of a service that a campaign comes by, and the most times to let one pass before it counts."""
    common = {**_OF_ALL, **(_APPLY if service in _READS else {})}
    own = {f"{service}.{point}": most for point, most in _POINTS[service].items()}
    return {**own, **{point.format(service): most for point, most in common.items()}}


@dataclass
class Deaths:
    """What each process is armed with: the next entry of its plan whenever it is started, then nothing."""

    plans: dict[str, list[str]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)

    def __call__(self, process: str) -> str:
        """The faults of a process that is being started."""
        self.starts[process] += 1
        plan = self.plans.get(process)
        return plan.pop(0) if plan else ""


def hits(log: Path) -> Counter[str]:
    """How often a process that logs there died or stood still at each point."""
    told = (json.loads(line) for line in log.read_text().splitlines() if '"fault"' in line)
    return Counter(line["point"] for line in told if line["event"] == "fault")


def drawn(plan: Iterable[str]) -> set[str]:
    """The points of a plan."""
    return {entry.rpartition(",")[2].partition("=")[0] for entry in plan}


def stopped_at(plan: str) -> set[str]:
    """The points of a plan to stand still at."""
    return {entry.partition("=")[0] for entry in plan.split(",")}


def kills(rng: Random, service: str, count: int) -> list[str]:
    """
    So many deaths of a service, and one at each point of a campaign at least where there are enough.

    After half a minute at its relay, should a point not come.
    """
    found = points(service)
    each = rng.sample(list(found), min(count, len(found)))
    more = rng.choices(list(found), k=count - len(each))
    drawn = [(point, rng.randint(1, found[point])) for point in each + more]
    return [f"{service}.relay.after_commit=kill@300,{point}=kill@{time}" for point, time in drawn]


def stops(rng: Random, services: Mapping[str, int]) -> dict[str, list[str]]:
    """
    Plans in which services stand still so many times each, at points of a campaign, all in one life of each.

    At as many points as there are before it is at one again. At those of their relays, which come first in a life, after a while:
    nobody would get any further.
    """
    plans: dict[str, list[str]] = {}
    for service, count in services.items():
        found = list(points(service))
        each = rng.sample(found, min(count, len(found)))
        times: dict[str, list[int]] = defaultdict(list)
        for point in [*each, *rng.choices(found, k=count - len(each))]:
            first = _RELAYED if ".relay." in point else 0
            times[point].append(max(times[point], default=first) + rng.randint(1, 5))
        plans[service] = [",".join(f"{point}=stop@{'+'.join(map(str, at))}" for point, at in times.items())]
    return plans


def pid_of(node: ApartNode, service: str, number: int = 1) -> int:
    """
    A service's process, be it ready or standing still: so its socket isn't asked. Raises LookupError while there is none.

    What it starts itself, for moments only, has its environment too.
    """
    door = f"PARLEY_SERVE_PUBLIC=unix:{node.doors.socket(service, number)}".encode()
    parents: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if door in (process / "environ").read_bytes().split(b"\0"):
                parents[process.name] = _status(process)[1]
    for pid, parent in parents.items():
        if parent not in parents:
            return int(pid)
    raise LookupError(service)


def kill(node: ApartNode, service: str, number: int = 1) -> None:
    """Kill -9 a service's process."""
    os.kill(pid_of(node, service, number), signal.SIGKILL)


def stands_still(pid: int) -> bool:
    """Whether a process is stopped."""
    return _status(Path(f"/proc/{pid}"))[0] == "T"


def children(pid: int) -> list[int]:
    """The processes that a process started and that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _status(process)[1] == str(pid):
                found.append(int(process.name))
    return found


def _status(process: Path) -> list[str]:
    """A process's state, its parent, and more (proc_pid_stat(5))."""
    return (process / "stat").read_text().rpartition(") ")[2].split()
