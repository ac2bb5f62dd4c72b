"""How much memory the router's daemon holds when it has nothing to do: ``python tests/bench/daemon.py``."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 60.0  # MiB
START_LIMIT = 60
REST = 3  # seconds after it said that it is ready


def memory() -> float:
    """Return the resident memory of a daemon with an empty disk and no engine, in MiB."""
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
        process = subprocess.Popen([sys.executable, "-m", "paradrop.main"], cwd=home, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            channel.recv(100)
            time.sleep(REST)
            status = Path(f"/proc/{process.pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) / 1024
        finally:
            process.terminate()
            process.wait(60)


def main() -> int:
    """Print the memory; 1 if the target is missed."""
    found = memory()
    print(f"idle daemon {found:6.1f} MiB (target {TARGET:.0f} MiB)")
    return int(found > TARGET)


if __name__ == "__main__":
    sys.exit(main())
