"""Certificates as an operator makes them with openssl."""

import subprocess
from pathlib import Path


def self_signed(place: Path, *names: str) -> dict[str, str]:
    """Write a certificate that nobody vouches for, and its key; return the settings that name them."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=registry", "-addext", "subjectAltName=" + ",".join(names or ("IP:127.0.0.1",)),
         "-keyout", str(place / "key.pem"), "-out", str(place / "certificate.pem")], check=True, capture_output=True)
    return {"tls_certificate": str(place / "certificate.pem"), "tls_key": str(place / "key.pem")}


def fingerprint(place: Path) -> str:
    """Return what openssl says a certificate's fingerprint is."""
    file = str(place / "certificate.pem")
    said = subprocess.run(["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", file],
                          check=True, capture_output=True, text=True).stdout
    return said.strip().partition("=")[2]
