"""Importing customers from a CSV file, with a mapping that says what its columns mean."""
