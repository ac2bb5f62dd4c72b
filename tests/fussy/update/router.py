"""A router that follows a channel: a target, a keyring with the channel's first root, settings."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fussy import verify
from fussy.target import Target, find
from fussy.updating import record, update
from fussy.updating.record import Record
from fussy.updating.settings import Settings, parse
from fussy.updating.update import Wish
from tests.fussy.conftest import Keys

QUICK = {"product": "router", "patience": 2.0, "check_deadline": 20.0, "deadline": 60.0, "random_delay": 0.0}


class Router:
    """A router at PLACE/NAME whose keyring has ROOT."""

    def __init__(self, place: Path, keys: Keys, root: Path, *sources: str | Path, name: str = "router",
                 **settings: Any) -> None:
        self.place = place / name
        self.target = self.place / "opt"
        self.target.mkdir(parents=True)
        self.keyring = keys.keyring_knowing(name=name)
        if (keys.keyring / "signers").exists():
            (self.keyring / "signers").write_bytes((keys.keyring / "signers").read_bytes())
        (self.keyring / "root.json").write_bytes(root.read_bytes())
        self.set(*sources, **settings)

    def set(self, *sources: str | Path, **settings: Any) -> None:
        """Write the owner's settings."""
        found, mistakes = parse({**QUICK, "device": self.place.name, "sources": list(map(str, sources)), **settings})
        assert not mistakes
        self.settings: Settings = found
        values = msgspec.to_builtins(found)
        tables = {name: values.pop(name) or {} for name in ("on_demand", "hawkbit")}
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        for table, fields in tables.items():
            if fields:
                lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]
        self.toml = self.place / "update.toml"
        self.toml.write_text("\n".join(lines) + "\n")

    def update(self, *, expect: str = "", **wish: bool) -> Record:
        """Run the updater in this process; EXPECT is the outcome."""
        done = update.run(self.target, self.settings, self.keyring, Wish(**wish))
        assert not expect or done.outcome == expect, done.line
        return done

    def command(self, *arguments: str | Path, verb: str = "update") -> list[str]:
        options: list[str | Path] = ["-t", self.target]
        if verb == "update":
            options += ["-s", self.toml, "-k", self.keyring]
        return [sys.executable, "-m", "fussy", verb, *map(str, [*arguments, *options])]

    def popen(self, *arguments: str | Path, verb: str = "update",
              env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(self.command(*arguments, verb=verb), stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})

    def run(self, *arguments: str | Path, verb: str = "update", fails: int = 0,
            env: Mapping[str, str] | None = None) -> str:
        """Run a verb as cron would, without a terminal; return all that it says. FAILS is the exit code to expect."""
        with self.popen(*arguments, verb=verb, env=env) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == fails, (process.returncode, out, err)
        return out + err

    @property
    def record(self) -> Record:
        return record.load(self.found)

    @property
    def found(self) -> Target:
        return find(self.target)

    @property
    def private(self) -> Path:
        """The updater's directory."""
        return record.place(self.found)

    def current(self) -> str:
        """Return the name of the release in use after checking that it is whole; "" if there is none."""
        release = self.found.current_release()
        if release is None:
            assert not os.path.lexists(self.found.current)
            return ""
        assert verify.damage(release) == []
        return release.name
