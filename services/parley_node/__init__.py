"""The command line, and every service, in one process or each in its own: the one package that may import them all."""
