"""Wireless: radios and the networks on them."""

import hashlib
from collections.abc import Iterator, Mapping

from paradrop.backend.pdconfd.config.base import AllConfigs, ConfigError, ConfigObject, option_list
from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import Run, StartDaemon, Step
from paradrop.backend.pdconfd.config.hostapd import hostapd_conf, isHexString, supplicant_conf
from paradrop.backend.pdconfd.config.network import ConfigInterface, checked_ifname, create_link
from paradrop.backend.pdconfd.config.wifioptions import WifiDevice, WifiIface

# What iw calls the modes
_IW_TYPES = {"ap": "__ap", "sta": "managed", "monitor": "monitor"}


class ConfigWifiDevice(ConfigObject):
    """``wifi-device``: a radio. Only its power is set here; the rest goes to the networks on it."""

    typename = "wifi-device"
    values_type = WifiDevice
    options = option_list(WifiDevice)
    values: WifiDevice

    @property
    def real_name(self) -> str:
        """The radio's own network link."""
        return checked_ifname(self.values.ifname or self.name)

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        if self.values.txpower is not None:
            where = ("iw", "phy", self.values.phy) if self.values.phy else ("iw", "dev", self.real_name)
            yield Step(Command.PRIO_CONFIG_IFACE,
                       Run((*where, "set", "txpower", "fixed", str(self.values.txpower * 100))),
                       Run((*where, "set", "txpower", "auto")))


class ConfigWifiIface(ConfigObject):
    """``wifi-iface``: a wireless network: an access point (mode ``ap``), a station (``sta``) or a ``monitor``.

    Its link is the one of its interface section, made on the radio unless it is the radio's own. Access points are
    run by hostapd, stations by wpa_supplicant; when only what concerns the daemon changes, the link stays.
    """

    typename = "wifi-iface"
    values_type = WifiIface
    options = option_list(WifiIface)
    values: WifiIface

    def check(self) -> None:
        if self.values.mode not in _IW_TYPES:
            raise ConfigError(f"cannot use wifi-iface {self.name}: its mode {self.values.mode!r} is not one of "
                              + ", ".join(_IW_TYPES))

    def link(self, interface: ConfigInterface) -> str:
        """Return the name of the network link; in a bridge, and without a name given, it is derived from our own."""
        if self.values.ifname:
            return checked_ifname(self.values.ifname)
        if interface.is_bridge:
            return f"vwlan{_number(self.name) & 0xffff:04x}"
        return interface.real_name

    def made_links(self, allConfigs: AllConfigs) -> Mapping[str, tuple[str, ...]]:
        device = allConfigs.get(("wifi-device", self.values.device))
        interface = allConfigs.get(("interface", self.values.network))
        if not isinstance(device, ConfigWifiDevice) or not isinstance(interface, ConfigInterface):
            return {}
        step = self._creation(device, self.link(interface))
        return {self.link(interface): step.do.argv} if step else {}

    def steps(self, allConfigs: AllConfigs) -> Iterator[Step]:
        device = self.find(allConfigs, ConfigWifiDevice, self.values.device)
        interface = self.find(allConfigs, ConfigInterface, self.values.network)
        link = self.link(interface)
        creation = self._creation(device, link)
        on: tuple[str, ...] = (link,)
        if creation:
            yield creation
            on = (link, *creation.do.argv)
            yield Step(Command.PRIO_CONFIG_IFACE,
                       Run(("ip", "link", "set", "dev", link, "address", _hardware_address(self.name))), on=on)
        elif self.values.mode != "ap":
            yield Step(Command.PRIO_CREATE_IFACE, Run(("ip", "link", "set", "dev", link, "down")))
            kind = ("iw", "dev", link, "set", "type")
            yield Step(Command.PRIO_CREATE_IFACE, Run((*kind, _IW_TYPES[self.values.mode])), Run((*kind, "managed")))
        bridge = interface.real_name if interface.is_bridge else None
        daemon = self._daemon(device, link, bridge)
        if daemon:
            yield Step(Command.PRIO_START_DAEMON, daemon, daemon.stop(), on=on)

    def _creation(self, device: ConfigWifiDevice, link: str) -> Step | None:
        """Return the step that makes the link, or None if it is the radio's own."""
        if link == device.real_name:
            return None
        where = ["phy", device.values.phy] if device.values.phy else ["dev", device.real_name]
        return create_link(["iw", *where, "interface", "add", link, "type", _IW_TYPES[self.values.mode]],
                           ["iw", "dev", link, "del"])

    def _daemon(self, device: ConfigWifiDevice, link: str, bridge: str | None) -> StartDaemon | None:
        if self.values.mode == "ap":
            place = self.place("hostapd")
            text = hostapd_conf(device.values, self.values, link, bridge, f"{self.manager.writeDir}/hostapd")
            argv: tuple[str, ...] = ("hostapd", "-P", f"{place}.pid", "-B", f"{place}.conf")
        elif self.values.mode == "sta":
            place = self.place("wpa_supplicant")
            text = supplicant_conf(self.values)
            bridged = ("-b", bridge) if bridge else ()
            argv = ("wpa_supplicant", "-B", "-c", f"{place}.conf", "-i", link, *bridged, "-D", "nl80211",
                    "-P", f"{place}.pid")
        else:
            return None
        return StartDaemon(argv, f"{place}.conf", text, f"{place}.pid")


def _number(name: str) -> int:
    """Return a number that is the same for a name at all times and on all machines."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:5])


def _hardware_address(name: str) -> str:
    """Return a locally administered hardware address; two networks on one radio must not have the same."""
    return ":".join(f"{byte:02x}" for byte in (2, *_number(name).to_bytes(5)))


__all__ = ["ConfigWifiDevice", "ConfigWifiIface", "isHexString"]
