"""
Audit: the transparency log of what happened, and each customer's own history.

May know: commitments, and for each its sealed detail. Must never know: any value, any name. Called by: anyone, for
checkpoints, tiles and proofs; customers, for their history; everybody's events come in over the streams. Calls nobody.
"""
