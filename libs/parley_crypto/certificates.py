"""
Certificates by which services know each other (X.509, mutual TLS).

Who a service is stands in its certificate as a SPIFFE id, ``spiffe://parley/<name>``; ``<name>`` is also its DNS name, by which
those who call it check that they reached it. An authority signs them once and its key is forgotten: nobody can sign another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=730)


class CertificateUnusable(ValueError):
    """A certificate or its key is none, or the two don't belong together."""


_T = TypeVar("_T")

_TRUST_DOMAIN = "spiffe://parley/"
_BACKDATED = timedelta(hours=1)
"""Clocks of machines differ."""


@dataclass(frozen=True)
class Leaf:
    """What one service shows (``certificate``) and proves (``key``) who it is with, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Issue:
    """An authority's certificate (PEM), and what it signed, by service."""

    authority: bytes
    leaves: Mapping[str, Leaf]


def issue(names: Iterable[str], now: datetime) -> Issue:
    """Make an authority and a certificate for each service, good from now on for LIFE; forget the authority's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Parley services")])
    authority = (
        _certificate(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaves = {service: _leaf(service, name, key, now) for service in names}
    return Issue(authority.public_bytes(Encoding.PEM), leaves)


def end_of(certificate: bytes) -> datetime:
    """When a certificate (PEM) ends. Raises ValueError for what isn't one."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def check(certificate: bytes, key: bytes, authority: bytes) -> None:
    """
    Check that these (PEM) can be read, and that the key is the certificate's. Raises CertificateUnusable.

    gRPC finds out when it opens a door, and can't say what is wrong.
    """
    shown = _read("the certificate", lambda pem: x509.load_pem_x509_certificates(pem)[0].public_key(), certificate)
    proven = _read("the key", lambda pem: load_pem_private_key(pem, None).public_key(), key)
    _read("the authority's certificate", x509.load_pem_x509_certificates, authority)
    if proven != shown:
        raise CertificateUnusable("the key isn't the certificate's")


def _read(what: str, read: Callable[[bytes], _T], pem: bytes) -> _T:
    try:
        return read(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # what is wrong with it may say what is in it
        raise CertificateUnusable(f"{what} can't be read as PEM") from None


def identity(name: str) -> str:
    """The SPIFFE id of a service."""
    return _TRUST_DOMAIN + name


def _leaf(service: str, issuer: x509.Name, authority: ec.EllipticCurvePrivateKey, now: datetime) -> Leaf:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
    names = [x509.UniformResourceIdentifier(identity(service)), x509.DNSName(service)]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    signed = (
        _certificate(subject, issuer, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Leaf(signed.public_bytes(Encoding.PEM), pem)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + LIFE)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
