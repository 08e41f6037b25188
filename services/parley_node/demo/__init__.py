"""A story a newcomer can watch: a population, a campaign, consents, releases, a withdrawal, receipts."""
