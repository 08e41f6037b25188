"""The small shared nouns every package may use: time, ids, faults, redaction. Standard library only."""
