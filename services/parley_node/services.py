"""The services, by name: in the order in which they are started and shown."""

SERVICES = ("identity", "vault", "consent", "broker", "audit")
