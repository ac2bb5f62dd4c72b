"""Whether a router is who it says it is: it has the certificate that it was provisioned with, and the key of it."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from paradrop.backend.link.messages import Hello, challenge_text


class Unproved(Exception):
    """A router did not prove who it is; the text says to its owner why."""


def check(hello: Hello, certificate: str, public_key: str, host: str, nonce: str) -> None:
    """Check what a router says against what is known of it: the CERTIFICATE that this server made for it, and its
    PUBLIC_KEY (both PEM, empty if it was not provisioned). HOST is the server's.

    :raises Unproved: it is another one
    """
    if not certificate:
        raise Unproved(f"{hello.pdid} is not provisioned here")
    if hello.certificate.strip() != certificate.strip():
        raise Unproved(f"{hello.pdid} was provisioned again, or elsewhere: this certificate is no longer its own")
    key = serialization.load_pem_public_key(public_key.encode())
    text = challenge_text(host, nonce)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(hello.signature, text)
            return
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(hello.signature, text, ECDSA(hashes.SHA256()))
            return
    except InvalidSignature:
        pass
    raise Unproved(f"this is not signed with the key of {hello.pdid} for {host}")
