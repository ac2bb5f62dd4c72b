"""Where everything of a prefix lies.

::

    PREFIX/
        initialized      it is a complete prefix
        uuid             who it is; leases and locks refer to it
        metadata         JSON: what it was made from
        id_rsa, .pub     key for root of all its machines
        images/          disks, and what snapshots keep of them
        logs/            what machines printed on their serial lines, what QEMU and other programs said
        virt/            JSON for the environment, each machine and network; sockets of what runs
"""

from pathlib import Path


class Paths:
    """The paths of the prefix in the directory PREFIX; nothing is made or looked at."""

    def __init__(self, prefix: str | Path) -> None:
        self._prefix = Path(prefix).absolute()

    def _prefixed(self, *args: str) -> str:
        return str(self._prefix.joinpath(*args))

    def prefix(self) -> str:
        """The directory itself."""
        return str(self._prefix)

    def prefix_lagofile(self) -> str:
        """This file represents a prefix that's initialized"""
        return self._prefixed("initialized")

    def uuid(self) -> str:
        """The file with the 32 characters that name the prefix."""
        return self._prefixed("uuid")

    def metadata(self) -> str:
        """The file with what the prefix was made from."""
        return self._prefixed("metadata")

    def ssh_id_rsa(self) -> str:
        """The secret key."""
        return self._prefixed("id_rsa")

    def ssh_id_rsa_pub(self) -> str:
        """The public key."""
        return self._prefixed("id_rsa.pub")

    def images(self, *path: str) -> str:
        """A path among the disks."""
        return self._prefixed("images", *path)

    def logs(self) -> str:
        """The directory for logs."""
        return self._prefixed("logs")

    def virt(self, *path: str) -> str:
        """A path among what describes the environment and its sockets."""
        return self._prefixed("virt", *path)
