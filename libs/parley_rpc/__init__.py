"""
How Parley's parts talk: servers, channels, interceptors, status.

One chain of guards stands before every handler, and it is the same over TCP, a unix socket and the in-process channel.

``status`` and ``channels`` are also the SDK's: they import no server dependency.
"""
