"""`python -m parley_identity` is `parley serve identity`."""

from parley_identity.app import build
from parley_identity.config import Config
from parley_rpc.serving import main

main("identity", Config, build)
