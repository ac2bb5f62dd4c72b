"""How much memory the router's daemon holds when it has nothing to do: ``python tests/bench/daemon.py``.

Twice: without a server, and linked to one.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "paradrop" / "link"))

from registrystub import Hub, identity, linking

TARGET = 60.0  # MiB
START_LIMIT = 60
REST = 3  # seconds after it said that it is ready


def linked_memory() -> float:
    """Return the resident memory of a daemon that is linked to a server, in MiB."""
    with linking() as hub:
        return memory(hub)


def memory(hub: Hub | None = None) -> float:
    """Return the resident memory of a daemon with an empty disk and no engine, in MiB; linked to HUB, if there is one.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"{home}/notify")
        channel.settimeout(START_LIMIT)
        environment = {
            "PATH": os.environ["PATH"], "HOME": home, "NOTIFY_SOCKET": f"{home}/notify",
            "CONFIG_HOME_DIR": f"{home}/lib", "RUNTIME_HOME_DIR": f"{home}/run", "UCI_CONFIG_DIR": f"{home}/config",
            "DOCKER_CONFIG_FILE": f"{home}/docker.default", "DOCKER_HOST": f"unix://{home}/no-engine.sock",
            "PDFCD_PORT": str(port)}
        if hub:
            (Path(home) / "lib/keys").mkdir(parents=True)
            named = {"format": 1, "data": asdict(identity(hub.url)[0])}
            (Path(home) / "lib/keys/identity.json").write_text(json.dumps(named))
        process = subprocess.Popen([sys.executable, "-m", "paradrop.main"], cwd=home, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            channel.recv(100)
            if hub:
                hub.next()
            time.sleep(REST)
            status = Path(f"/proc/{process.pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) / 1024
        finally:
            process.terminate()
            process.wait(60)


def main() -> int:
    """Print the memory; 1 if the target is missed."""
    found, linked = memory(), linked_memory()
    print(f"idle daemon {found:6.1f} MiB, linked to a server {linked:6.1f} MiB (target {TARGET:.0f} MiB)")
    return int(max(found, linked) > TARGET)


if __name__ == "__main__":
    sys.exit(main())
