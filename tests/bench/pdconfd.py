"""How long pdconfd itself takes to reload 200 sections of which one changed: ``python tests/bench/pdconfd.py``.

Commands are not run but counted, so the time is our own: reading the files, comparing, planning, keeping the journal,
and looking whether the 40 daemons still live. The target is 100 ms.
"""

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from paradrop.backend.pdconfd.config.effects import Effect, StartDaemon
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Done, Runner
from paradrop.lib import settings

NETWORKS = 40  # with five sections each
ROUNDS = 20
TARGET = 0.100  # seconds
COMMANDS = 2  # the DHCP server of the one network stops and starts


class Counting(Runner):
    """Runs nothing; one process stands for all the daemons."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.process = process
        self.count = 0

    def learn(self, effect: Effect) -> Effect | None:
        return None

    def perform(self, effect: Effect) -> Done:
        self.count += 1
        if isinstance(effect, StartDaemon):
            Path(effect.conf).write_text(effect.text)
            Path(effect.pidfile).write_text(f"{self.process}\n")
        return Done(0, self.process, "", "")


def write_files(lease: str) -> None:
    """Write five sections for each network; the lease time is that of the last one."""
    names = [f"n{number}" for number in range(NETWORKS)]
    files = {
        "network": "".join(f"config interface {name} #chute{number}\n option proto static\n option ifname {name}\n"
                           f" option ipaddr 10.0.{number}.1\n option netmask 255.255.255.0\n"
                           for number, name in enumerate(names)),
        "firewall": "".join(f"config zone\n option name {name}\n list network {name}\n option input ACCEPT\n"
                            f"config redirect\n option src n0\n option proto tcp\n option src_dport {8000 + number}\n"
                            f" option dest_ip 10.0.{number}.2\n" for number, name in enumerate(names)),
        "dhcp": "".join(f"config dnsmasq {name}\n list interface {name}\nconfig dhcp {name}\n option interface {name}\n"
                        f" option leasetime {lease if name == names[-1] else '12h'}\n" for name in names),
    }
    for name, text in files.items():
        (Path(settings.UCI_CONFIG_DIR) / name).write_text(text)


def main() -> int:
    """Print the times; 1 if the target is missed."""
    first, later, commands = measure()
    print(f"first load of {5 * NETWORKS} sections   {1000 * first:6.1f} ms  {commands[0]} commands")
    print(f"reload, one of them changed   {1000 * later:6.1f} ms  {max(commands[1:])} commands "
          f"(target {1000 * TARGET:.0f} ms)")
    return int(later > TARGET)


def measure() -> tuple[float, float, list[int]]:
    """Return the seconds of the first load, the median of the reloads', and the commands of each."""
    with tempfile.TemporaryDirectory() as directory:
        settings.relocate(directory)
        Path(settings.UCI_CONFIG_DIR).mkdir(parents=True)
        confs = [f"{settings.PDCONFD_WRITE_DIR}/dnsmasq-n{number}.conf" for number in range(NETWORKS)]
        with subprocess.Popen(["sh", "-c", "read forever", *confs], stdin=subprocess.PIPE) as process:
            times, commands = loads(Counting(process.pid))
            process.terminate()
    return times[0], statistics.median(times[1:]), commands


def loads(runner: Counting) -> tuple[list[float], list[int]]:
    """Return seconds and number of commands of the first load and of each reload."""
    manager = ConfigManager(settings.PDCONFD_WRITE_DIR, runner=runner)
    times, commands = [], []
    for number in range(ROUNDS + 1):
        write_files(f"{number + 1}h")
        before = runner.count
        start = time.perf_counter()
        manager.loadConfig()
        manager.statusString()
        times.append(time.perf_counter() - start)
        commands.append(runner.count - before)
    return times, commands


if __name__ == "__main__":
    raise SystemExit(main())
