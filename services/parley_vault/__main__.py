"""`python -m parley_vault` is `parley serve vault`."""

from parley_rpc.serving import main
from parley_vault.app import build
from parley_vault.config import Config

main("vault", Config, build)
