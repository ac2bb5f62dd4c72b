"""The router's key pair: made here, its private half never leaves the router (Ed25519, RFC 8032).

``cryptography`` takes several MiB, so this module is imported when it is needed and not before.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from paradrop.backend.link.messages import challenge_text
from paradrop.lib.errors import ParadropError


def make() -> str:
    """Return a new private key as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def request(key: str) -> str:
    """Return the request for a certificate (PKCS #10, PEM). The server decides on the name in it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "paradrop router")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_private(key), None)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def sign(key: str, host: str, nonce: str) -> bytes:
    """Return the signature that proves to the server at HOST who this is; NONCE is its challenge."""
    return _private(key).sign(challenge_text(host, nonce))


def is_for(certificate: str, key: str) -> bool:
    """Tell whether a certificate (PEM) is for this private key."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return _spki(found) == _spki(_private(key).public_key())


def is_certificate(text: str) -> bool:
    """Tell whether a text is a certificate as PEM."""
    try:
        x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        return False
    return True


def _private(key: str) -> Ed25519PrivateKey:
    try:
        found = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParadropError("cannot use this router's key: it is damaged") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise ParadropError("cannot use this router's key: it is of another kind")
    return found


def _spki(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
