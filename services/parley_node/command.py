"""What `parley` runs: the command line or, where only the SDK is installed, a sentence on what it takes."""

import sys
from importlib import import_module


def main() -> None:
    """Run the command line, whose modules need more than the SDK's do."""
    try:
        cli = import_module("parley_node.cli")
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("parley"):
            raise
        sys.exit(
            f"parley: the command line needs {error.name}, which the SDK doesn't:"
            " `pip install '.[server,embedded]'` in Parley's folder."
        )
    cli.main()
