"""
Identity: accounts, sign-in, marketers, introductions.

May know: which ids every other service knows a customer by, their keys and seed, and which marketer was introduced to whom.
Must never know: any item, any consent. Called by: customers, marketers, operators, importers; broker. Calls nobody.
"""
