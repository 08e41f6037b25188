"""What can stop the embedded servers. Each message ends in the next step; none holds anything but paths."""


class ServersUnavailable(Exception):
    """The embedded PostgreSQL or Valkey can't be used here; the message says what to do instead."""
