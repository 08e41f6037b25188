"""The command line, and every service in one process: the one package that may import them all."""
