"""`python -m parley_broker` is `parley serve broker`."""

from parley_broker.app import build
from parley_broker.config import Config
from parley_rpc.serving import main

main("broker", Config, build)
