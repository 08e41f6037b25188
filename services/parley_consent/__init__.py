"""
Consent: rules, offers, consents, permits and settlements.

May know: on which terms each customer agrees with whom, and the questions marketers ask. Must never know: any item's value
(beyond a marketer's own question), who a customer is. Called by: customers; broker. Calls nobody.
"""
