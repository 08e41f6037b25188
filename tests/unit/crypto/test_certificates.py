from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from parley_crypto.certificates import LIFE, CertificateUnusable, check, end_of, identity, issue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_certificate_names_its_service_and_may_serve_and_call() -> None:
    leaf = x509.load_pem_x509_certificate(issue(["vault", "broker"], NOW).leaves["vault"].certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["spiffe://parley/vault"] == names.get_values_for_type(x509.UniformResourceIdentifier)
    assert ["vault"] == names.get_values_for_type(x509.DNSName)
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(uses)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_authority_signed_what_it_issued_and_nothing_of_another_issue() -> None:
    issued, other = issue(["vault"], NOW), issue(["vault"], NOW)
    leaf = x509.load_pem_x509_certificate(issued.leaves["vault"].certificate)
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(issued.authority))
    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(other.authority))
    assert issued.authority != other.authority
    assert issued.leaves["vault"].key != other.leaves["vault"].key


def test_certificate_ends_after_its_life_and_begins_a_little_early() -> None:
    issued = issue(["vault"], NOW)
    assert NOW + LIFE == end_of(issued.leaves["vault"].certificate) == end_of(issued.authority)
    leaf = x509.load_pem_x509_certificate(issued.leaves["vault"].certificate)
    assert NOW - timedelta(hours=1) == leaf.not_valid_before_utc


def test_key_is_in_no_text() -> None:
    assert "PRIVATE" not in repr(issue(["vault"], NOW))


def test_identity_is_a_spiffe_id() -> None:
    assert "spiffe://parley/consent" == identity("consent")


def test_what_was_issued_together_is_usable() -> None:
    issued = issue(["vault"], NOW)
    check(issued.leaves["vault"].certificate, issued.leaves["vault"].key, issued.authority)


@pytest.mark.parametrize("cut", [0, 40, -40], ids=["empty", "begun", "nearly whole"])
def test_what_was_cut_short_is_named(cut: int) -> None:
    issued = issue(["vault"], NOW)
    leaf = issued.leaves["vault"]
    with pytest.raises(CertificateUnusable, match=r"^the certificate can't be read as PEM$"):
        check(leaf.certificate[:cut], leaf.key, issued.authority)
    with pytest.raises(CertificateUnusable, match=r"^the key can't be read as PEM$"):
        check(leaf.certificate, leaf.key[:cut], issued.authority)
    with pytest.raises(CertificateUnusable, match=r"^the authority's certificate can't be read as PEM$"):
        check(leaf.certificate, leaf.key, issued.authority[:cut])


def test_key_of_another_is_refused() -> None:
    issued = issue(["vault", "broker"], NOW)
    with pytest.raises(CertificateUnusable, match="the key isn't the certificate's"):
        check(issued.leaves["vault"].certificate, issued.leaves["broker"].key, issued.authority)
