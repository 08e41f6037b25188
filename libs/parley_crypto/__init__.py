"""Cryptography, all of it: the only package that imports nacl, cryptography and jwt. Pure and synchronous."""
