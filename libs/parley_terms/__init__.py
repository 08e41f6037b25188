"""
Terms: the four dials as pure values, and what can be said of them without asking anybody.

Shared by who states terms (broker), who weighs them (consent) and who opens values by them (vault). No I/O.
"""
