"""`python -m parley_audit` is `parley serve audit`."""

from parley_audit.app import build
from parley_audit.config import Config
from parley_rpc.serving import main

main("audit", Config, build)
