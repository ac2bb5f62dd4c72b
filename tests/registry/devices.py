"""Devices that are provisioned: a key of their own, and a request signed with it."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.registry.conftest import HERE, Person
from tests.server.serverprocess import Answered, Server


@dataclass
class Device:
    """A device with hardware that has this digest, which no other one has."""

    machine: str = field(default_factory=lambda: secrets.token_hex(32))
    key: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    @property
    def csr(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "router")])
        return x509.CertificateSigningRequestBuilder(name).sign(self.key, None).public_bytes(Encoding.PEM).decode()

    def provision(self, server: Server, secret: str, **more: Any) -> Answered:
        return server.post(f"{HERE}/provision", {
            "secret": secret, "csr": self.csr, "machine": self.machine, "clock": time.time(), **more})


def secret_for(person: Person, name: str) -> str:
    """Make a router by name if it is not there, and have a secret issued for it."""
    person.post("/routers", {"name": name})
    issued = person.post(f"/routers/{name}/provision")
    assert issued.status == 200, issued.data
    return str(issued.body["secret"])
