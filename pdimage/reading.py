"""Makes an :class:`pdimage.description.Image` from ``image.yaml``, and finds all mistakes on the way.

``name`` and ``version`` are required; pdimage/images/README.rst describes the rest. Texts may use variables:
``{{ port }}``.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from fussy import manifest, versions
from fussy.manifest import Check, Limits, Trial
from paradrop.lib import settings as runtime
from paradrop.lib.checks import Fields, not_empty, one_of, plain
from pdimage import templates, textchecks
from pdimage.chutesources import ChuteReader
from pdimage.description import Hooks, Image, Platform, Resources, Template, Variables
from pdimage.errors import Mistake, Mistakes
from pdimage.inherit import gather, resolve
from pdimage.machine import PROCESSORS, Machine
from pdimage.yamlsource import Document, Place, document, texts

# What each mapping of a description may hold, with an example that shows how it is written.
KEYS: Mapping[str, Mapping[str, str]] = {
    "": {"name": "router", "version": '"1.0"', "base": "common.yaml", "boards": "{pc: {}}", "compatible": "[pc]",
         "platform": "{paradrop: true}", "chutes": "[{path: ../chutes/hello-world}]", "overlay": "[overlay]",
         "templates": "[{source: motd.j2, target: etc/motd}]", "hooks": "{post_install: hook.sh}",
         "health": "[{name: page, http: 'http://127.0.0.1/'}]", "metadata": "{colour: blue}",
         "persistent": "[/etc/config]", "installer": '"2.0"', "floor": '"1.0"', "upgrade_from": '"1.0"',
         "limits": "{post_install: 300}", "trial": "{confirm: boot}", "resources": "{memory: 256M}",
         "settings": "{PDFCD_PORT: 14321}",
         "system": "/", "machine": "{processor: aarch64}", "keys": "keyring", "variables": "{port: 9000}"},
    "platform": {"paradrop": "true", "fussy": "true", "requirements": "requirements.lock", "wheels": "wheels",
                 "debian": "[dnsmasq-base]"},
    "chutes[]": {"name": "hello-world", "path": "../chutes/hello-world", "archive": "hello.tar",
                 "config": "{services: {}}"},
    "templates[]": {"source": "motd.j2", "target": "etc/motd", "mode": '"0644"'},
    "hooks": {"pre_install": "stop.sh", "post_install": "start.sh"},
    "health[]": {"name": "page", "command": "[bin/check]", "http": "'http://127.0.0.1/'", "unit": "dnsmasq.service",
                 "dhcp": "br-lan", "dns": "example.org", "tcp": "'127.0.0.1:22'", "route": "9.9.9.9",
                 "nat": "'9.9.9.9:53 from 192.168.1.77 iif br-lan'", "lines": "[iptables, -S]",
                 "contains": "Hello", "seconds": "30", "kept": "true"},
    "limits": {"pre_install": "300", "post_install": "300"},
    "trial": {"confirm": "boot", "seconds": "3600", "boots": "2", "watchdog": "/dev/watchdog"},
    "machine": {"processor": "aarch64", "python": '"3.11"', "glibc": '"2.36"'},
    "resources": {"memory": "256M", "processors": "4", "radios": "{radio0: {hwmode: 11g}}", "lan": "[eth1]"},
}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_image(path: Path, board: str | None, variables: Variables) -> tuple[Image, list[Mistake]]:
    """Read the description at PATH; what is wrong is in the mistakes, and harmless in the image."""
    gathered = gather(path, board)
    mistakes = gathered.mistakes
    if mistakes and not gathered.root.value:
        return Image("", ""), mistakes  # nothing could be read, so nothing more can be said
    known = document(gathered.root).data.get("variables")
    values = {**(known if isinstance(known, dict) else {}), **variables}

    def fill(text: str, path: str, place: Place) -> str:
        if path.startswith("variables"):
            return text
        try:
            return templates.render_text(text, path, place, {**values, "board": gathered.board or ""})
        except Mistakes as error:
            mistakes.extend(error.mistakes)
            return ""

    reader = Reader(document(texts(gathered.root, fill)), mistakes)
    image = reader.image()
    image = replace(image, board=gathered.board, variables=values, sources=gathered.sources)
    if not image.compatible and gathered.board:
        image = replace(image, compatible=(gathered.board,))
    return image, sorted(_first_of_each(mistakes))


def _first_of_each(mistakes: list[Mistake]) -> list[Mistake]:
    """Leave out what only follows from an earlier mistake at the same place."""
    return list({(mistake.file, mistake.line, mistake.path): mistake for mistake in reversed(mistakes)}.values())


def board_names(path: Path) -> tuple[str, ...]:
    """Return the boards that the description at PATH knows."""
    return gather(path, None).boards


@dataclass
class Reader:
    """Takes a document apart. Every method returns something harmless where it notes a mistake."""

    document: Document
    mistakes: list[Mistake]

    def image(self) -> Image:
        """Return the image that the document describes."""
        wrong: list[str] = []
        top = Fields(self.document.data, "", wrong)
        chutes = ChuteReader(self.document, self.mistakes)
        image = Image(
            name=top.required("name", textchecks.release_name), version=top.required("version", textchecks.version),
            compatible=top.texts("compatible", not_empty, plain),
            platform=self._platform(top.fields("platform")),
            chutes=tuple(source for fields in top.mappings("chutes") if (source := chutes.read(fields))),
            overlay=tuple(self._directories(top, "overlay")),
            templates=tuple(template for fields in top.mappings("templates") if (template := self._template(fields))),
            hooks=self._hooks(top.fields("hooks")),
            health=tuple(self._check(fields) for fields in top.mappings("health")),
            metadata=self._metadata(top), persistent=top.texts("persistent", textchecks.absolute, textchecks.not_all),
            installer=top.text("installer", textchecks.version) or "",
            floor=top.text("floor", textchecks.version) or "",
            upgrade_from=top.text("upgrade_from", textchecks.version) or "", limits=self._limits(top.fields("limits")),
            trial=self._trial(top.fields("trial")),
            machine=self._machine(top.fields("machine")),
            resources=self._resources(top.fields("resources")), settings=self._settings(top),
            system=top.text("system", textchecks.absolute) or "/", keys=self._path(top, "keys", directory=True),
        )
        if versions.key(image.floor) > versions.key(image.version or image.floor):
            top.wrong("floor", f"is above the version, {image.version}: once in use, the release would refuse itself")
        if not isinstance(top.get("variables"), Mapping | None):
            top.wrong("variables", "must be a mapping of names to values")
        for name in ("base", "boards"):
            top.get(name)
        top.close()
        self.mistakes += [self._located(text) for text in wrong]
        return image

    def _platform(self, fields: Fields) -> Platform:
        found = Platform(
            paradrop=_boolean(fields, "paradrop", True), fussy=_boolean(fields, "fussy", True),
            requirements=self._path(fields, "requirements"), wheels=self._path(fields, "wheels", directory=True),
            debian=fields.texts("debian", textchecks.debian_package), place=self.document.place("platform"))
        fields.close()
        return found

    def _template(self, fields: Fields) -> Template | None:
        source = self._path(fields, "source", required=True)
        target = fields.required("target", textchecks.path_in_tree)
        mode = fields.text("mode", textchecks.mode) or "0644"
        fields.close()
        return Template(source, target, int(mode, 8), self.document.place(fields.path)) if source and target else None

    def _hooks(self, fields: Fields) -> Hooks:
        found = Hooks(self._path(fields, "pre_install"), self._path(fields, "post_install"))
        fields.close()
        return found

    def _check(self, fields: Fields) -> Check:
        found = Check(
            name=fields.required("name"), command=list(fields.texts("command")), lines=list(fields.texts("lines")),
            http=fields.text("http", textchecks.address) or "", seconds=_number(fields, "seconds", 30.0),
            kept=_boolean(fields, "kept", False),
            **{name: fields.text(name) or "" for name in ("unit", "dhcp", "dns", "tcp", "route", "nat", "contains")})
        if sum(kind in fields for kind in manifest.KINDS) != 1:
            fields.mistakes.append(f"{fields.path}: needs one of {', '.join(manifest.KINDS)}")
        fields.close()
        return found

    def _limits(self, fields: Fields) -> Limits:
        found = Limits(**{name: _number(fields, name, 300.0) for name in ("pre_install", "post_install")})
        fields.close()
        return found

    def _trial(self, fields: Fields) -> Trial:
        confirm = fields.text("confirm", one_of(*get_args(manifest.Confirm))) or "checks"
        found = Trial(cast(manifest.Confirm, confirm), _number(fields, "seconds", 3600.0),
                      fields.integer("boots", 1, 1000) or 2, fields.text("watchdog", textchecks.absolute) or "")
        fields.close()
        return found

    def _machine(self, fields: Fields) -> Machine:
        here = Machine.here()
        found = Machine(fields.text("python", textchecks.python) or here.python,
                        fields.text("processor", one_of(*PROCESSORS)) or here.processor,
                        fields.text("glibc", textchecks.glibc) or here.glibc)
        fields.close()
        return found

    def _resources(self, fields: Fields) -> Resources:
        text = str(value) if type(value := fields.get("memory")) is int else fields.text("memory", textchecks.size)
        memory = int(text.rstrip("KMG")) * _SIZES[text.lstrip("0123456789")] if text else None
        radios = None
        if "radios" in fields:
            radios = {name: _texts_by_name(radio) for name, radio in fields.fields("radios").each()}
        found = Resources(memory, fields.integer("processors", 1, 4096), radios,
                          fields.texts("lan", not_empty) if "lan" in fields else None)
        fields.close()
        return found

    def _settings(self, top: Fields) -> Mapping[str, str]:
        fields = top.fields("settings")
        values = _texts_by_name(fields)
        for name in fields.names():
            default = getattr(runtime, name, None)
            if not hasattr(runtime, name) or not name.isupper():
                near = difflib.get_close_matches(name, [one for one in dir(runtime) if one.isupper()], 1)
                fields.wrong(name, "is no setting of the runtime" + (f"; is {near[0]} meant?" if near else ""))
            elif isinstance(default, bool | int | float) and name in values:
                value = runtime.parseValue(values[name])
                kinds = bool if isinstance(default, bool) else int | float
                if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
                    fields.wrong(name, f"must be {'true or false' if kinds is bool else 'a number'}, as its default "
                                       f"{default}")
        return values

    def _metadata(self, top: Fields) -> Mapping[str, str | int | float | bool | None]:
        fields = top.fields("metadata")
        values: dict[str, Any] = {}
        for name in fields.names():
            values[name] = fields.get(name)
            finite = not isinstance(values[name], float) or math.isfinite(values[name])
            if not isinstance(values[name], str | int | float | bool | None) or not finite:
                fields.wrong(name, "must be text, a number, true or false; put it in quotes")
                values[name] = None
        return values

    def _directories(self, fields: Fields, key: str) -> list[Path]:
        found = []
        given = fields.get(key)
        for i, text in enumerate(fields.texts(key, not_empty)):
            path = f"{fields.at(key)}[{i}]" if isinstance(given, list) else fields.at(key)
            directory = resolve(self.document.place(path), text)
            if directory.is_dir():
                found.append(directory)
            else:
                fields.mistakes.append(f"{path}: {directory} is not a directory that is there")
        return found

    def _path(self, fields: Fields, key: str, *, directory: bool = False, required: bool = False) -> Path | None:
        text = fields.required(key) if required else fields.text(key, not_empty)
        if not text:
            return None
        path = resolve(self.document.place(fields.at(key)), text)
        if path.is_dir() if directory else path.is_file():
            return path
        fields.wrong(key, f"{path} is not a {'directory' if directory else 'file'} that is there; write a path "
                          "relative to this file")
        return None

    def _located(self, mistake: str) -> Mistake:
        """Return a mistake of :class:`Fields` with its place and with what would be right."""
        path, _, text = mistake.partition(": ")
        above, _, key = path.rpartition(".")
        known = KEYS.get(re.sub(r"\[\d+\]", "[]", above), {})
        if text == "missing" and key in known:
            text = f"is missing; write for example {key}: {known[key]}"
        elif text.startswith("unknown; known here") and known:
            text = f"unknown; known here: {', '.join(known)}"
        elif text.startswith("must be") and key in known:
            text = f"{text} (for example {key}: {known[key]})"
        return self.document.mistake(path, text)


def _boolean(fields: Fields, key: str, default: bool) -> bool:
    return fields.boolean(key) if key in fields else default


def _number(fields: Fields, key: str, default: float) -> float:
    value = fields.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
        fields.wrong(key, "must be a number of seconds, more than 0 and at most 86400")
        return default
    return float(value)


def _texts_by_name(fields: Fields) -> dict[str, str]:
    """Return a mapping whose values are texts; numbers and booleans are written as they are in settings."""
    values = {}
    for name in fields.names():
        value = fields.get(name)
        if not isinstance(value, str | int | float | bool | None) or "\n" in str(value):
            fields.wrong(name, "must be text of one line, a number, true or false")
        else:
            values[name] = str(value)
    return values
