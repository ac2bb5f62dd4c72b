"""The authority of this server: a key and a certificate, with which it certifies the keys that routers make.

::

    DATA/registry/             mode 0700
        authority.pem          mode 0600: the key and the certificate, made at the first start, all of it or nothing

A certificate says which pdid has which key, and is good for as long as the database has it for that router.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fussy.disk import create_file
from fussy.errors import SystemSetup
from pdimage.server.refusals import bad

# Routers are in the field for longer than anybody plans, and some begin with a clock that is behind.
_LIFE = timedelta(days=365 * 40)
_BEFORE = timedelta(days=2)

RouterKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True)
class Applicant:
    """A router that proved to have the secret half of a key; ``pem`` is the public one."""

    key: RouterKey
    pem: str


@dataclass(frozen=True)
class Authority:
    """What certifies. ``certificate`` is its own, PEM."""

    key: ec.EllipticCurvePrivateKey
    name: x509.Name
    certificate: str

    def certify(self, applicant: Applicant, pdid: str) -> str:
        """Return a certificate (PEM) that says that the router with this pdid has this key."""
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        made = _certificate(_named(pdid), applicant.key, self.name, self.key, ca=False).add_extension(
            purpose, critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def open_authority(root: Path) -> Authority:
    """Return the authority of the server in a directory, which is made if there is none.

    :raises SystemSetup: it can't be read, or not be made
    """
    file = root / "registry" / "authority.pem"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            with suppress(FileExistsError):  # another process made it at the same time
                create_file(file, _make(), 0o600)
        return _read(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SystemSetup(f"cannot use the registry's authority {file}: {error}; restore it from a backup: the "
                          "routers know no other one") from error


def read_request(text: str) -> Applicant:
    """Return who asks for a certificate with a request (PKCS #10, PEM), which is signed with the key that it names.

    :raises Refused: it is no request, is not signed with that key, or the key is of a kind that is not taken (400)
    """
    try:
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise bad(f"csr is no request for a certificate: {error}") from error
    if not signed:
        raise bad("csr is not signed with the key in it")
    if not (isinstance(key, ed25519.Ed25519PublicKey)
            or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256)):
        raise bad("the key of csr must be of Ed25519, or of an elliptic curve of 256 bits or more")
    return Applicant(key, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def _make() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("Registry")
    made = _certificate(name, key.public_key(), name, key, ca=True).sign(key, hashes.SHA256())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)


def _read(text: bytes) -> Authority:
    key, certificate = load_pem_private_key(text, None), x509.load_pem_x509_certificate(text)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")
    return Authority(key, certificate.subject, certificate.public_bytes(Encoding.PEM).decode())


def _certificate(subject: x509.Name, key: RouterKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, *, ca: bool,
                 ) -> x509.CertificateBuilder:
    """Begin a certificate, of an authority or of somebody else, with what RFC 5280 wants in it."""
    now = datetime.now(UTC)
    begun = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _BEFORE, now + _LIFE)
    usage = x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False,
                          key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                          decipher_only=False)
    for extension, critical in (
            (x509.BasicConstraints(ca=ca, path_length=0 if ca else None), True), (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(key), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)):
        begun = begun.add_extension(extension, critical)
    return begun


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
