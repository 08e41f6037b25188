"""Audit's decisions, without I/O."""
