"""Three routers on one machine follow one channel, each by the documented line in a cron of its own.

The channel is made by ``fussy-publish`` and served over HTTP by a plain static file server. Each router is a machine
that has an /etc and an /opt of its own, so the line of README.rst is used word for word. What cron would mail is kept.
"""

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .machine import CHECKOUT, COMMANDS, Machine, private_machine

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("cron"), reason="needs cron: see scripts/packages")]

# Shortly before a time at which the line of README.rst is due; what cron starts has the real clock.
NEARLY = "12:16:58"

PRIVATE = f"""
set -e
mkdir /mnt/sbin /mnt/sbin-work
mount -t overlay private /usr/sbin -o lowerdir=/usr/sbin,upperdir=/mnt/sbin,workdir=/mnt/sbin-work
printf '#!/bin/sh\\ncat >> /tmp/mail\\n' > /usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail
mount -t tmpfs private /var/spool/cron
mkdir /var/spool/cron/crontabs
rm -rf /etc/cron.d /etc/crontab /etc/fussy
mkdir -p /etc/cron.d /etc/fussy
ln -s {COMMANDS.parent} /opt/fussy
touch /tmp/mail
"""

RELEASE = json.dumps({"health": [{"name": "modem", "command": ["bin/check-modem"], "seconds": 2}]})
GOOD = "#!/bin/sh\nexit 0\n"
# That of release 3, which lacks a driver.
NO_DRIVER = "#!/bin/sh\n[ ! -e /etc/old-modem ] || { echo no driver for this modem; exit 1; }\n"


def example(first: str) -> str:
    """Return the literal block of README.rst that follows the words FIRST."""
    words = r"\s+".join(map(re.escape, first.split()))
    found = re.search(words + r"::\n\n((?:    .*\n)+)", (CHECKOUT / "README.rst").read_text())
    assert found
    return re.sub("^    ", "", found[1], flags=re.MULTILINE)


class Publisher:
    """A build machine with a channel. Releases differ from the first by more and more."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.home = Path(f"/proc/{machine.process.pid}/root/tmp/home")
        signer = "releases@example.org"
        machine.run(f"echo horse > phrase && fussy keys signing --passphrase-file phrase 'Example <{signer}>'")
        device = machine.run(f"fussy keys keyring keys --signer {signer} --name router").stdout.strip()
        machine.run(f"fussy-publish channel init -p router --signer {signer} -e {device}")
        machine.run("cp channel/metadata/1.root.json keys/root.json")
        self.publish(1)

    def publish(self, number: int) -> None:
        files = {"bin/app": "".join(random.Random(part).randbytes(3_000).hex() for part in range(number)),
                 "bin/check-modem": NO_DRIVER if number == 3 else GOOD, ".fussy/release.json": RELEASE}
        for path, text in files.items():
            file = self.home / f"firmware-{number}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        self.machine.run(f"fussy-publish channel add router firmware-{number} -V {number}.0 --passphrase-file phrase")

    def serve(self, stack: ExitStack) -> str:
        """Start a web server that ends with STACK; return its URL."""
        line = "exec python -u -m http.server -b 127.0.0.1 -d channel 0 2> requests"
        server = stack.enter_context(
            subprocess.Popen(self.machine.argv(line), env=self.machine.env, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stdout
        return f"http://127.0.0.1:{server.stdout.readline().split()[5]}"

    def fetched(self) -> list[str]:
        """Return what was fetched since the last call: the versions that each bundle takes a router from and to."""
        offered = json.loads(self.machine.run("fussy-publish channel list --json").stdout)["router"]
        versions = {release["digest"]: release["version"] for release in offered}
        names = {release["full"]["sha256"]: f"full {release['version']}" for release in offered}
        names |= {delta["sha256"]: f"{versions[delta['base']]} to {release['version']}"
                  for release in offered for delta in release["deltas"]}
        asked = self.machine.run("cat requests && : > requests").stdout
        return sorted(names[sha256] for sha256 in re.findall(r'"GET /targets/router/(\w+)', asked))


class Router:
    """A machine with the keyring, the settings and the cron line that README.rst shows, and the first release."""

    def __init__(self, machine: Machine, publisher: Publisher, url: str) -> None:
        self.machine = machine
        self.root = Path(f"/proc/{machine.process.pid}/root")
        machine.run(PRIVATE)
        machine.run(f"cp -a {publisher.home}/keys /etc/fussy/keys")
        settings = example("says whom it follows").replace("https://updates.example.org/channel", url)
        # it is to be installed now, whatever time that is
        settings = settings.replace('window = "02:00-05:00"', "random_delay = 0")
        (self.root / "etc/fussy/update.toml").write_text(settings)
        (self.root / "etc/cron.d/fussy-update").write_text(example("The line for ``/etc/cron.d/fussy-update``"))
        machine.run(f"fussy-install {publisher.home}/channel/targets/router/*")

    def cron(self) -> "subprocess.Popen[bytes]":
        """Start cron shortly before the line is due."""
        line = f"exec faketime '{time.strftime('%Y-%m-%d')} {NEARLY}' cron -f -L 0"
        return subprocess.Popen(self.machine.argv(line), env=self.machine.env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def record(self) -> Any:
        """Return what the updater remembers of its last run."""
        path = self.root / "opt/firmware/.fussy/update/state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def mail(self) -> str:
        """Return the one line that cron has mailed since the last call, "" if nothing."""
        text = self.machine.run("cat /tmp/mail && : > /tmp/mail").stdout
        return "\n".join(line for line in text.splitlines() if line.startswith("fussy"))

    def fussy(self, words: str) -> str:
        return self.machine.run(f"/opt/fussy/bin/fussy {words}").stdout

    def version(self) -> str:
        """Return the version in use after checking that it is whole."""
        assert self.fussy("verify").endswith(": good\n")
        return str(json.loads(self.fussy("status --json"))["current"]["version"])


def versions(routers: list[Router]) -> list[str]:
    return [router.version() for router in routers]


def on_schedule(*routers: Router) -> None:
    """Let the cron of each of ROUTERS run its line once, and wait until it has mailed what was said."""
    before = [router.record() for router in routers]
    crons = [router.cron() for router in routers]
    try:
        end = time.monotonic() + 60
        while any(router.record() == old for router, old in zip(routers, before, strict=True)):
            assert time.monotonic() < end, [router.mail() for router in routers]
            time.sleep(0.1)
    finally:
        for router, cron in zip(routers, crons, strict=True):
            router.machine.run("kill $(cat /run/crond.pid)")
            cron.communicate(timeout=60)  # ends with the job, which has the same stdout


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with private_machine("~/.gnupg", "~/keys", "~/channel.private/keyring") as machine:
        yield Publisher(machine)


def test_three_routers_follow_one_channel(publisher: Publisher) -> None:
    with ExitStack() as stack:
        url = publisher.serve(stack)
        machines = [stack.enter_context(private_machine("/etc/fussy/keys")) for _ in range(3)]
        steady, late, odd = routers = [Router(machine, publisher, url) for machine in machines]
        (odd.root / "etc/old-modem").touch()

        publisher.publish(2)
        on_schedule(steady, odd)
        assert versions(routers) == ["2.0", "1.0", "2.0"]
        assert publisher.fetched() == ["1.0 to 2.0", "1.0 to 2.0"]
        for router in (steady, odd):
            assert "updated from 1.0 to firmware-2 (version 2.0) by a delta bundle" in router.mail()

        # one has been off, and for one it is a bad release
        publisher.publish(3)
        on_schedule(*routers)
        assert versions(routers) == ["3.0", "3.0", "2.0"]
        assert publisher.fetched() == ["1.0 to 3.0", "2.0 to 3.0", "2.0 to 3.0"]
        assert "updated from 2.0 to firmware-3 (version 3.0) by a delta bundle" in steady.mail()
        assert "updated from 1.0 to firmware-3 (version 3.0) by a delta bundle" in late.mail()
        why = "health check 'modem' did not pass within 2 s: exit status 1: no driver for this modem"
        assert why in odd.mail()
        assert odd.record()["exit_code"] == 3
        assert re.search(f"reverted .*{why}", odd.fussy("log"))
        assert re.search(f"bad .* firmware-3: .*{why}", odd.fussy("status"))

        # it is not tried again, and told once
        for told in ("firmware-3 (version 3.0) failed on this device before (see fussy status)", ""):
            on_schedule(*routers)
            assert versions(routers) == ["3.0", "3.0", "2.0"]
            assert publisher.fetched() == []
            assert (steady.mail(), late.mail()) == ("", "")
            mail = odd.mail()
            assert told in mail if told else mail == ""
            assert odd.record()["exit_code"] == 26

        publisher.publish(4)
        on_schedule(*routers)
        assert versions(routers) == ["4.0", "4.0", "4.0"]
        # what is left of the bad release is good enough to start from
        assert publisher.fetched() == ["3.0 to 4.0"] * 3
        assert "updated from 2.0 to firmware-4 (version 4.0) by a delta bundle" in odd.mail()
