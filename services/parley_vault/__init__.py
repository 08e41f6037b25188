"""
Vault: the Personal Knowledge Banks, encrypted; matching; releases.

May know: items of subjects, and which of them are discoverable. Must never know: who a subject is, any rule or consent, or why
something is released, beyond the permit at hand; it keeps no record of releases. Called by: customers, importer; broker.
Calls nobody.
"""
