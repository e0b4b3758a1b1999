"""Certificates of a SuperLink, and the keys by which it knows its SuperNodes.

They keep strangers off the line. Whose rows are in a sum is decided by the roster's keys alone.
"""

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_afl.errors import ConfigError

CA, CERTIFICATE, KEY = "ca.crt", "server.crt", "server.key"
# Browsers refuse server certificates for longer (CA/Browser Forum, ballot SC-22).
SERVER_DAYS = 398
CA_DAYS = 3650


def make_certificates(folder: Path, hosts: Sequence[str]) -> None:
    """Make an authority, and a server's certificate that it signs.

    The authority's own key is used once and not kept: another certificate takes another authority.

    Args:
        folder: gets ca.crt, server.crt and server.key; made if need be.
        hosts: names and addresses by which the server is reached.

    Raises:
        ConfigError: no hosts, or a certificate is there already.
    """
    if not hosts:
        raise ConfigError("no host; name what SuperNodes call the SuperLink by: --host NAME")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secure-afl SuperLink authority")])
    authority = (
        _builder(issuer, issuer, ca_key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_identifier(ca_key), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    server = (
        _builder(subject, issuer, server_key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(h) for h in hosts]), critical=False)
        .add_extension(_identifier(server_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _create(folder / KEY, private, 0o600)
    _create(folder / CERTIFICATE, server.public_bytes(Encoding.PEM), 0o644)
    _create(folder / CA, authority.public_bytes(Encoding.PEM), 0o644)


def make_node_key(private: Path) -> Path:
    """Make the key that a SuperNode signs its requests with, as OpenSSH writes keys.

    Args:
        private: file of the private key, for its owner alone.

    Returns:
        The public key's file, which the operator registers.

    Raises:
        ConfigError: there is a file already.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    public = private.with_name(f"{private.name}.pub")
    content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    _create(private, content, 0o600)
    _create(public, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), 0o644)
    return public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks differ by minutes.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path} exists; move it away, for keys are never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
