"""What an update check that finds nothing new takes, as JSON: ``python tests/bench/updates.py``."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

from homes import keys
from report import Check

PROGRAMS = Path(__file__).resolve().parents[2] / ".venv" / "bin"
ROUNDS = 11
SETTINGS = 'sources = ["{}"]\nproduct = "router"\n'
CHANNEL = """
export GNUPGHOME=$BUILD
mkdir -p tree/etc target
echo 1 > tree/etc/version
fussy-publish channel init -p router --keyring "$DEVICE" -e "$READER" --sign-with "$SIGNER"
fussy-publish channel add router tree -V 1.0
cp channel/metadata/1.root.json "$DEVICE/root.json"
"""


def measure(place: Path, environment: dict[str, str]) -> tuple[list[str], float, int]:
    """Return the requests of one check, the median of its CPU time in seconds, and its peak memory in bytes."""
    subprocess.run(["bash", "-euc", CHANNEL], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    requests = place / "requests"
    with requests.open("w") as log, subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "-d", place / "channel", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True) as server:
        try:
            assert server.stdout
            (place / "update.toml").write_text(
                SETTINGS.format(f"http://127.0.0.1:{server.stdout.readline().split()[5]}"))
            command = [str(PROGRAMS / "fussy-update"), "--no-delay", "-s", str(place / "update.toml"),
                       "-t", str(place / "target"), "-k", environment["DEVICE"]]
            for _ in range(2):  # installs the release, then finds nothing new
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            before = requests.read_text()
            used = [usage(command) for _ in range(ROUNDS)]
            asked = re.findall(r'"GET (\S+)', requests.read_text().removeprefix(before))
        finally:
            server.terminate()
    return asked[:len(asked) // ROUNDS], median(cpu for cpu, _ in used), max(memory for _, memory in used)


def usage(command: list[str]) -> tuple[float, int]:
    """Run a command that must succeed; return its CPU time in seconds and its peak memory in bytes."""
    process = subprocess.Popen(command)
    _, status, taken = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return taken.ru_utime + taken.ru_stime, taken.ru_maxrss * 1024


def checks() -> list[Check]:
    """Measure what a check that finds nothing new takes."""
    with tempfile.TemporaryDirectory() as scratch, keys() as homes:
        place = Path(scratch)
        asked, cpu, memory = measure(place, {**os.environ, **homes, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"})
        size = sum((place / "channel" / path.lstrip("/")).stat().st_size for path in asked)
    return [
        Check("update check, nothing new: requests", len(asked), "", 1),
        Check("update check, nothing new: fetched", size, "bytes", 4096),
        Check("update check, nothing new: CPU", 1000 * cpu, "ms", 300),
        Check("update check, nothing new: memory", memory / (1 << 20), "MiB", 60),
    ]


if __name__ == "__main__":
    json.dump([asdict(check) for check in checks()], sys.stdout)
