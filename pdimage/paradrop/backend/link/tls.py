"""Whether the other end of a TLS connection is the router's server.

A certificate that was pinned is the only one that counts, whatever the router's clock says; without one, an authority
must vouch for it: the system's, or the one that provisioning gave.
"""

import hashlib
import ssl
import time
from pathlib import Path

import fussy
from fussy.moments import utc

_NOT_YET_VALID, _EXPIRED = 9, 10
# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL


def context(pinned: str, authority: str) -> ssl.SSLContext:
    """Return how to connect. With a PINNED certificate (PEM), compare with :func:`is_pinned` what the other end showed.

    :raises ValueError: one of them is no certificate
    """
    made = ssl.create_default_context()
    if pinned:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif authority:
        try:
            made.load_verify_locations(cadata=authority)
        except ssl.SSLError as error:
            raise ValueError("not a certificate") from error
    return made


def is_pinned(shown: bytes | None, pinned: str) -> bool:
    """Tell whether the certificate that was shown (DER) is the pinned one (PEM)."""
    return shown is not None and shown == ssl.PEM_cert_to_DER_cert(pinned)


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 fingerprint of a certificate (DER), as people compare it.

    >>> fingerprint(b"")[:11]
    'E3:B0:C4:42'
    """
    return hashlib.sha256(certificate).digest().hex(":").upper()


def changed(shown: bytes, pinned: str) -> str:
    """Return one sentence about a certificate that is not the pinned one."""
    return (f"its certificate changed: it shows {fingerprint(shown)[:23]}…, and not "
            f"{fingerprint(ssl.PEM_cert_to_DER_cert(pinned))[:23]}… as before; if that is right, provision again")


def reason(error: ssl.SSLError) -> str:
    """Return what is wrong with a connection, for people; a clock that is far off is named as the cause."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"no TLS connection: {error.reason or error}"
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        what = "is not valid yet" if error.verify_code == _NOT_YET_VALID else "has expired"
        hint = "set the clock" if time.time() < Path(fussy.__file__).stat().st_mtime else "one of them is wrong"
        return f"its certificate {what} by this router's clock, which shows {utc(time.time(), 'minute')}; {hint}"
    return f"nobody vouches for its certificate ({error.verify_message})"
