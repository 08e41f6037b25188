"""Cryptography, all of it: the only package that imports nacl and cryptography. Pure and synchronous."""
