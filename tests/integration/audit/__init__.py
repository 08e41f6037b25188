"""The audit service on real servers."""
