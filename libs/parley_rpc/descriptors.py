"""How many files and connections a process may have open."""

import resource

_ENOUGH = 65_536


def allow_many() -> None:
    """
    Let this process, and those that it starts, open as many as the system lets it, up to 65,536.

    By default it may open 1,024, for the sake of programs that can't count further. Strangers' connections could use those up,
    and then a file can't be written that must be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
