"""Does the vault keep, find and release what it should, on real servers?"""
