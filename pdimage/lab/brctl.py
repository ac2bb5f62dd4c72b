"""Bridges, made and removed with ``ip link``; in another network namespace when a way into it is given.

``inside`` is a command that runs another one in a namespace, such as ``("nsenter", "--net=/proc/4711/ns/net")``.
"""

from collections.abc import Sequence

from pdimage import tools


def create(name: str, stp: bool = True, *, inside: Sequence[str] = ()) -> None:
    """Make the bridge NAME and bring it up; with STP it finds loops, and forwards after a delay.

    :raises PartFailed: it is there already, or may not be made
    """
    _brctl("add", "name", name, "type", "bridge", "stp_state", str(int(stp)), inside=inside)
    _set_link(name, "up", inside=inside)


def destroy(name: str, *, inside: Sequence[str] = ()) -> None:
    """Take the bridge NAME down and remove it.

    :raises PartFailed: there is none
    """
    _set_link(name, "down", inside=inside)
    _brctl("delete", name, "type", "bridge", inside=inside)


def exists(name: str, *, inside: Sequence[str] = ()) -> bool:
    """Tell whether there is a bridge NAME."""
    code, shown = tools.attempt([*inside, "ip", "-oneline", "link", "show", "type", "bridge"], what="look for bridges")
    return code == 0 and any(line.split(": ")[1] == name for line in shown.splitlines())


def _brctl(command: str, *args: str, inside: Sequence[str] = ()) -> None:
    tools.run([*inside, "ip", "link", command, *args], what=f"{command} a bridge")


def _set_link(name: str, state: str, *, inside: Sequence[str] = ()) -> None:
    """Bring a link ``up`` or ``down``."""
    tools.run([*inside, "ip", "link", "set", "dev", name, state], what=f"bring {name} {state}")
