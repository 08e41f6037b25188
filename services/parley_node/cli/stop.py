"""How a command ends that can't do what it was asked: with the reason and the next step, and exit code 1."""

from parley_node.cli.hints import completed


class Stop(Exception):
    """The reason, in a sentence, and what to do next, if there is something."""

    def __init__(self, reason: str, step: str = "") -> None:
        super().__init__(completed(reason.rstrip(".")) + (f"\n  {completed(step)}" if step else ""))
