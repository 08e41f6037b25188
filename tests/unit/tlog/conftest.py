"""Property tests here do real cryptography on shared machines: a slow example is no failure."""

from hypothesis import settings

settings.register_profile("tlog", deadline=None)
settings.load_profile("tlog")
