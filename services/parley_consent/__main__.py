"""`python -m parley_consent` is `parley serve consent`."""

from parley_consent.app import build
from parley_consent.config import Config
from parley_rpc.serving import main

main("consent", Config, build)
