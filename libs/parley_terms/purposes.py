"""
Purposes: the part of the Data Privacy Vocabulary (DPV 2.2) that may be asked for, and the caps of each.

Caps after the fair-use table of the Account Aggregator scheme: how long a consent for a purpose may live, and how far a marketer
must be verified to ask for it.
"""

from dataclasses import dataclass
from datetime import timedelta

from parley_terms.terms import Level

DPV = "https://w3id.org/dpv#"


@dataclass(frozen=True, slots=True)
class Caps:
    """The bounds a request for a purpose keeps within."""

    longest: timedelta
    least_level: Level


_YEAR = timedelta(days=366)
_CAMPAIGN = Caps(timedelta(days=92), Level.VERIFIED)
_RELATIONSHIP = Caps(_YEAR, Level.VERIFIED)
_SERVICE = Caps(_YEAR, Level.UNVERIFIED)

PURPOSES = {
    DPV + name: caps
    for caps, names in (
        (_CAMPAIGN, "Marketing Advertising DirectMarketing PersonalisedAdvertising PublicRelations CommercialResearch"),
        (
            _RELATIONSHIP,
            (
                "Personalisation PersonalisedBenefits ServicePersonalisation ProvidePersonalisedRecommendations"
                " ProvideProductRecommendations ProvideEventRecommendations CustomerRelationshipManagement"
                " ResearchAndDevelopment NonCommercialResearch FraudPreventionAndDetection"
            ),
        ),
        (
            _SERVICE,
            (
                "CustomerCare CommunicationForCustomerCare CommunicationManagement CustomerOrderManagement PaymentManagement"
                " DeliveryOfGoods RequestedServiceProvision AgeVerification IdentityVerification RecordManagement"
            ),
        ),
    )
    for name in names.split()
}
