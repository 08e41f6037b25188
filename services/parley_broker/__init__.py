"""
Broker: exchanges, the work that follows from them, and the feed of what comes of it.

May know: exchanges, pseudonyms, sealed values. Must never know: any value (beyond a marketer's own question), any name or
address, any id of a customer. Called by: marketers. Calls identity, vault and consent.
"""
