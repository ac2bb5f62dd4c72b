"""A channel made by hand with python-tuf's metadata API, so that it can be made wrong in each way there is."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fussy import channel
from fussy.channel import Offer

TOP = ("root", "targets", "snapshot", "timestamp")


class Repository:
    """A channel in DIRECTORY with the product line ``router``.

    Change ``signed`` (metadata by role), ``signers`` (who signs, by role), then :meth:`publish` or :meth:`write`.
    """

    def __init__(self, directory: Path) -> None:
        self.metadata, self.targets = directory / "metadata", directory / "targets"
        self.metadata.mkdir(parents=True)
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in (*TOP, "router")}
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
        root = Root(expires=self.expires, consistent_snapshot=True)
        for role in TOP:
            root.add_key(self.signers[role][0].public_key, role)
        key = self.signers["router"][0].public_key
        delegated = DelegatedRole("router", [key.keyid], 1, terminating=True, paths=["router/*"])
        self.signed: dict[str, Any] = {
            "root": root, "router": Targets(expires=self.expires),
            "targets": Targets(expires=self.expires, delegations=Delegations({key.keyid: key}, {"router": delegated})),
            "snapshot": Snapshot(expires=self.expires), "timestamp": Timestamp(expires=self.expires)}
        self.write("root")
        self.publish(bump=())

    def sign(self, role: str, signers: Iterable[CryptoSigner] | None = None, signed: Any = None) -> bytes:
        """Return the metadata of ROLE, signed by those who may, or by SIGNERS."""
        meta = Metadata(signed or self.signed[role])
        for signer in self.signers[role] if signers is None else signers:
            meta.sign(signer, append=True)
        return meta.to_bytes()

    def path(self, role: str) -> Path:
        version = "" if role == "timestamp" else f"{self.signed[role].version}."
        return self.metadata / f"{version}{role}.json"

    def write(self, role: str, signers: Iterable[CryptoSigner] | None = None) -> bytes:
        data = self.sign(role, signers)
        self.path(role).write_bytes(data)
        return data

    def publish(self, bump: Iterable[str] = ("router", "snapshot", "timestamp")) -> None:
        """Raise the versions of the roles BUMP, and write all but the root so that they fit together."""
        for role in bump:
            self.signed[role].version += 1
        snapshot = self.signed["snapshot"]
        for role in ("targets", "router"):
            data = self.write(role)
            snapshot.meta[f"{role}.json"] = MetaFile(self.signed[role].version, len(data),
                                                     {"sha256": sha256(data).hexdigest()})
        data = self.write("snapshot")
        self.signed["timestamp"].snapshot_meta = MetaFile(snapshot.version, len(data),
                                                          {"sha256": sha256(data).hexdigest()})
        self.write("timestamp")

    def rotate(self, *roles: str) -> None:
        """Give ROLES new keys by a new root."""
        root = self.signed["root"]
        old_root = self.signers["root"]
        for role in roles:
            for signer in self.signers[role]:
                root.revoke_key(signer.public_key.keyid, role)
            self.signers[role] = [CryptoSigner.generate_ed25519() for _ in self.signers[role]]
            for signer in self.signers[role]:
                root.add_key(signer.public_key, role)
        root.version += 1
        self.write("root", dict.fromkeys([*old_root, *self.signers["root"]]))

    def keys(self, role: str, count: int, threshold: int) -> None:
        """Let ROLE have COUNT keys of which THRESHOLD must sign, from a new root on."""
        old_root = list(self.signers["root"])
        root = self.signed["root"]
        while len(self.signers[role]) < count:
            self.signers[role].append(CryptoSigner.generate_ed25519())
            root.add_key(self.signers[role][-1].public_key, role)
        root.roles[role] = Role(root.roles[role].keyids, threshold)
        root.version += 1
        self.write("root", dict.fromkeys([*old_root, *self.signers["root"]]))

    def offer(self, version: str, content: bytes = b"", **facts: Any) -> str:
        """Offer a full bundle of CONTENT, and publish; return its target path."""
        content = content or f"bundle {version}".encode()
        name = f"firmware-{version}.gpg"
        digest = sha256(version.encode()).hexdigest()
        offer = Offer(kind="full", release=f"firmware-{version}", version=version, digest=digest, **facts)
        self.signed["router"].targets[f"router/{name}"] = TargetFile.from_data(f"router/{name}", content, ["sha256"])
        self.signed["router"].targets[f"router/{name}"].unrecognized_fields["custom"] = channel.encode(offer)
        file = self.file(name, content)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.publish()
        return f"router/{name}"

    def file(self, name: str, content: bytes) -> Path:
        return self.targets / "router" / f"{sha256(content).hexdigest()}.{name}"
