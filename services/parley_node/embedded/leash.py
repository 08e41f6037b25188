"""
Become a server that dies with its parent: ``python -I -S leash.py OPTIONS -- PROGRAM ARGUMENT...``.

Runs between fork and the server's own code, as a program of its own rather than a ``preexec_fn``, because Python code
between fork and exec of a threaded process can deadlock. The order matters:

1. Lock the server's lock file and leave the descriptor to the server and its children. The kernel keeps the lock until
   the last of them is gone, orphaned backends included, so two servers never meet on one directory or one shared
   memory block, and no process id has to be trusted.
2. Give up root: enter a user namespace (user_namespaces(7)) or change the user. Both clear the parent-death signal.
3. Ask for the parent-death signal (prctl(2), PR_SET_PDEATHSIG), then look whether the parent died before that.

Standard library only, and nothing of ours: the interpreter starts with neither site-packages nor the working directory.
"""

import argparse
import ctypes
import errno
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

CLONE_NEWUSER = 0x10000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h

EXIT_REFUSED = 71  # EX_OSERR: this system refuses the user namespace
EXIT_LOCKED = 75  # EX_TEMPFAIL: another server still holds the lock

_LOCK_POLL_S = 0.01


def main(argv: list[str]) -> None:
    """Take the lock, give up root, tie the process to its parent, and become ``PROGRAM``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would note it for later, and later is the server
    options = _parser().parse_args(argv)
    if options.lock:
        _lock(options.lock, options.lock_wait)
    if options.namespace is not None:
        enter_namespace(options.namespace)
    elif options.user is not None:
        _drop_to(options.user, options.group)
    _die_with(options.parent, options.signal)
    os.umask(0o077)
    os.execv(options.command[0], options.command)  # noqa: S606 - no shell is what is wanted


def enter_namespace(uid: int) -> None:
    """Enter a new user namespace in which this process is ``uid``; to the outside it stays who it was."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        _refuse(f"unshare: {os.strerror(ctypes.get_errno())}")
    try:
        Path("/proc/self/setgroups").write_text("deny")  # what an unprivileged gid_map asks for
        Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1")
        Path("/proc/self/gid_map").write_text(f"{uid} {outer_gid} 1")
    except OSError as refusal:
        _refuse(f"{refusal.filename}: {refusal.strerror}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="leash")
    parser.add_argument("--parent", type=int, required=True, help="process id of who starts this")
    parser.add_argument("--signal", type=int, required=True, help="signal to get when the parent dies")
    parser.add_argument("--lock", type=Path, help="lock file that the server is to hold")
    parser.add_argument("--lock-wait", type=float, default=0.0, help="seconds to wait for it")
    parser.add_argument("--namespace", type=int, help="user id to be in a user namespace of its own")
    parser.add_argument("--user", type=int, help="user id to change to")
    parser.add_argument("--group", type=int, help="group id to change to")
    parser.add_argument("command", nargs="+", help="program (absolute path) and its arguments")
    return parser


def _lock(path: Path, wait_s: float) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            sys.stderr.write(f"leash: another server still holds {path}\n")
            sys.exit(EXIT_LOCKED)
        time.sleep(_LOCK_POLL_S)
    os.set_inheritable(descriptor, True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _drop_to(user: int, group: int) -> None:
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _die_with(parent: int, number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(errno.EPIPE)


def _refuse(why: str) -> None:
    sys.stderr.write(f"leash: no user namespace here: {why}\n")
    sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
