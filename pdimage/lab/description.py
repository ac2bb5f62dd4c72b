"""Reads a LagoInitFile: the machines and networks of an environment, in YAML. All mistakes are found at once.

README.rst beside this file has the table of keys. Paths are relative to the file they are written in.
"""

import re
from pathlib import Path
from typing import Any

from paradrop.lib.checks import Check, Fields, ip_address, matches, not_empty, one_of
from pdimage.errors import Mistake, Mistakes
from pdimage.lab import images
from pdimage.yamlsource import Document, document, read

_NAME = matches(r"[a-z][a-z0-9-]{0,30}", "a name of small letters, digits and dashes, such as router-1")
_NET_NAME = matches(r"[a-z][a-z0-9-]{0,11}", "a name of at most 12 small letters, digits and dashes, such as wan")
_SIZE = matches(r"[1-9][0-9]{0,6}[KMGT]", "a size such as 256M or 4G")
_MAC = matches(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "a hardware address such as 52:54:00:00:00:01")
_DISK_TYPES = ("template", "empty", "file", "nbd")
_NBD = matches(r"(nbd:unix:|nbd\+unix:///\?socket=)[^,:]+", "an address such as nbd:unix:/run/disk")
_PLACE = matches(r"/\S*", "an absolute path")


def load(path: Path) -> dict[str, Any]:
    """Return the configuration that the file PATH holds, as :meth:`pdimage.lab.Prefix.virt_conf` takes it.

    :raises Mistakes: with all that is wrong in it
    """
    root, mistakes = read(path)
    found = document(root)
    conf, wrong = check(found.data, path.parent)
    mistakes += [_located(found, text) for text in wrong]
    if mistakes:
        raise Mistakes(mistakes)
    return conf


def check(data: Any, directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration in DATA and what is wrong in it; relative paths are in DIRECTORY."""
    wrong: list[str] = []
    top = Fields(data, "", wrong)
    conf: dict[str, Any] = {"nets": {}, "domains": {}, "prototypes": {}}
    for name, fields in top.fields("nets").each():
        fields.check_name(name, _NET_NAME)
        conf["nets"][name] = _net(fields, directory)
    for kind in ("prototypes", "domains"):
        for name, fields in top.fields(kind).each():
            fields.check_name(name, _NAME)
            conf[kind][name] = _domain(fields, directory, conf)
    top.close()
    for key, example in (("nets", "nets: {wan: {}}"), ("domains", "domains: {router: {nics: [{net: wan}]}}")):
        if not conf[key]:
            wrong.append(f"{key}: there is none; write for example '{example}'")
    _check_management(conf, wrong)
    return conf, wrong


def _check_management(conf: dict[str, Any], wrong: list[str]) -> None:
    """See that one network reaches all machines."""
    chosen = [name for name, net in conf["nets"].items() if net.get("management")]
    for other in chosen[1:]:
        wrong.append(f"nets.{other}.management: {chosen[0]} is it already; one network is")
    chosen = chosen or [name for name, net in conf["nets"].items() if net["type"] == "nat"]
    if conf["nets"] and not chosen:
        wrong.append("nets: machines are reached over a network of type nat; add one")
        return
    for name, domain in conf["domains"].items():
        based = conf["prototypes"].get(domain.get("based-on", ""), {})
        nics = domain.get("nics") or based.get("nics", [])
        if not any(nic["net"] == chosen[0] for nic in nics):
            wrong.append(f"domains.{name}.nics: needs a card in {chosen[0]}, over which machines are reached")


def _net(fields: Fields, directory: Path) -> dict[str, Any]:
    net: dict[str, Any] = {"type": fields.text("type", one_of("nat", "bridge")) or "nat"}
    if "management" in fields and fields.boolean("management"):
        net["management"] = True
        if net["type"] != "nat":
            fields.wrong("management", "machines are reached over a network of type nat")
    _put(net, "gw", fields.text("gw", ip_address))
    _put(net, "dns_domain_name", fields.text("dns_domain_name", matches(r"[a-z0-9.-]+", "a name such as lab")))
    if serve := fields.text("serve", not_empty):
        net["serve"] = str((directory / serve).resolve())
        if net["type"] != "nat":
            fields.wrong("serve", "only a network of type nat has a gateway that could serve files")
    if "dhcp" in fields:
        dhcp = fields.fields("dhcp")
        net["dhcp"] = {"start": dhcp.integer("start", 2, 254) or 100, "end": dhcp.integer("end", 2, 254) or 254}
        dhcp.close()
    fields.close()
    return net


def _domain(fields: Fields, directory: Path, conf: dict[str, Any]) -> dict[str, Any]:
    domain: dict[str, Any] = {}
    based = fields.text("based-on", one_of(*conf["prototypes"]) if conf["prototypes"] else _NAME)
    if based and based not in conf["prototypes"]:
        fields.wrong("based-on", "there is no such prototype; prototypes come before domains")
    _put(domain, "based-on", based)
    for key, low, high in (("memory", 128, 1 << 20), ("vcpu", 1, 64), ("radios", 0, 16)):
        _put(domain, key, fields.integer(key, low, high))
    _put(domain, "flavour", fields.text("flavour", one_of(*images.FLAVOURS)))
    for key in ("root-password", "ssh-user", "append"):
        _put(domain, key, fields.text(key, not_empty))
    if "watchdog" in fields:
        domain["watchdog"] = fields.boolean("watchdog")
    nics = [_nic(nic, conf["nets"]) for nic in fields.mappings("nics")]
    disks = [_disk(disk, directory) for disk in fields.mappings("disks")]
    _put(domain, "nics", nics)
    _put(domain, "disks", disks)
    _put(domain, "artifacts", list(fields.texts("artifacts", _PLACE)))
    _put(domain, "groups", list(fields.texts("groups", _NAME)))
    _put(domain, "ports", list(fields.texts("ports", _NAME)))
    _put(domain, "metadata", fields.get("metadata"))
    files = fields.fields("files")
    _put(domain, "files", {name: str((directory / files.required(name)).resolve()) for name in files.names()})
    fields.close()
    return domain


def _nic(fields: Fields, nets: dict[str, Any]) -> dict[str, Any]:
    nic: dict[str, Any] = {"net": fields.required("net")}
    if nic["net"] and nic["net"] not in nets:
        fields.wrong("net", f"there is no network {nic['net']}; the networks are: {', '.join(nets) or 'none'}")
    _put(nic, "ip", fields.text("ip", ip_address))
    _put(nic, "mac", fields.text("mac", _MAC))
    for key in ("dhcp", "gateway"):
        if key in fields:
            nic[key] = fields.boolean(key)
    fields.close()
    return nic


def _disk(fields: Fields, directory: Path) -> dict[str, Any]:
    disk: dict[str, Any] = {"type": fields.text("type", one_of(*_DISK_TYPES)) or "template"}
    checks: dict[str, tuple[Check, ...]] = {
        "name": (_NAME,), "format": (one_of("qcow2", "raw"),), "dev": (), "size": (_SIZE,), "fs": (one_of("ext4"),),
        "mount": (_PLACE,), "url": (_NBD,), "template_name": (), "template_version": ()}
    for key, tests in checks.items():
        _put(disk, key, fields.text(key, *tests))
    for key in ("path", "content"):
        if path := fields.text(key, not_empty):
            disk[key] = str((directory / path).resolve())
    if "content" in disk and "fs" not in disk:
        fields.wrong("content", "needs a file system to lie in; add 'fs: ext4'")
    for kind, key in (("empty", "size"), ("file", "path"), ("nbd", "url")):
        if disk["type"] == kind and key not in fields:
            fields.wrong(key, f"is needed for a disk of type {kind}")
    fields.close()
    return disk


def _put(mapping: dict[str, Any], key: str, value: Any) -> None:
    """Put what was said into MAPPING, and nothing if nothing was."""
    if value not in (None, [], {}):
        mapping[key] = value


def _located(found: Document, text: str) -> Mistake:
    path, _, what = text.partition(": ")
    return found.mistake(re.sub(r"^descriptor$", "", path), what)
