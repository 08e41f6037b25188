"""A package: without this file pytest would keep fixtures of that scope until the run's end."""
