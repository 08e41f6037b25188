"""`python -m parley_node.cli` is `parley`."""

from parley_node.cli import main

main()
