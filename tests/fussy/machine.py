"""A machine for tests: the real one, but /etc, /opt, /run and /tmp are private and forgotten in the end (root only)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .terminal import Answers, on_terminal

COMMANDS = Path(sys.executable).parent

CHECKOUT = Path(__file__).resolve().parent.parent.parent

# The checkout and the commands stay where they are, also when they lie below a place that becomes private.
MOUNTS = """
set -e
mount -t tmpfs private /mnt
mkdir /mnt/upper /mnt/work /mnt/checkout /mnt/commands
mount --bind "$1" /mnt/checkout
mount --bind "$2" /mnt/commands
mount -t overlay private /etc -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work
for place in /opt /tmp /run; do mount -t tmpfs private $place; done
[ -d "$1" ] || { mkdir -p "$1"; mount --bind /mnt/checkout "$1"; }
[ -d "$2" ] || { mkdir -p "$2"; mount --bind /mnt/commands "$2"; }
mkdir -p -m 700 /tmp/home
echo ready
exec cat
"""


class Machine:
    """A private mount namespace, entered anew for each command; the home directory is in /tmp."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.env = {"PATH": f"{COMMANDS}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp/home", "LANG": "C.UTF-8",
                    "TERM": "xterm", "LC_ALL": "C.UTF-8"}

    def argv(self, line: str) -> list[str]:
        shell = ["bash", "-o", "pipefail", "-c", f"cd /tmp/home\n{line}"]
        return ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", *shell]

    def run(self, line: str, *, fails: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a shell command without a terminal."""
        done = subprocess.run(self.argv(line), env=self.env, capture_output=True, text=True, timeout=120, check=False,
                              start_new_session=True)
        assert done.returncode == fails, (line, done.stdout, done.stderr)
        return done

    def type(self, line: str, answers: Answers = (), *, fails: int = 0) -> str:
        """Type a command on a terminal and answer its questions; return what is shown."""
        code, shown = on_terminal(self.argv(line), answers, env=self.env)
        assert code == fails, shown
        return shown


@contextmanager
def private_machine(*key_directories: str) -> Iterator[Machine]:
    """Make a machine; skip the test where that can't be done.

    The agents of the home directory's keys and of KEY_DIRECTORIES are ended with it.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts, and files of root")
    for program in ("unshare", "nsenter", "gpg"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: see scripts/packages")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTS, "sh", CHECKOUT, COMMANDS.parent]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            if process.stdout.readline() != "ready\n":
                pytest.skip(f"no private mounts here: {process.stderr.read()}")
            made = Machine(process)
            try:
                yield made
            finally:
                homes = " ".join(("~/.gnupg", *key_directories))
                made.run(f"for home in {homes}; do gpgconf --homedir $home --kill all || true; done")
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(10)


@contextmanager
def small_file_system(place: Path, inodes: int) -> Iterator[Path]:
    """Mount an ext4 of 12 MB with INODES at PLACE/disk; skip the test where that can't be done."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    image, mount = place / "disk.img", place / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(12 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", str(inodes), "-m", "0", "-O", "^has_journal", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True).returncode:
        pytest.skip("no loop devices here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)
