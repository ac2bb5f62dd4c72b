"""The text of hostapd.conf and of wpa_supplicant.conf, from the options of a radio and of a network on it.

Names and values are those of hostapd 2.10's own ``hostapd.conf`` and ``wpa_supplicant.conf`` examples.
"""

from collections.abc import Iterator

from paradrop.backend.pdconfd.config.base import ConfigError
from paradrop.backend.pdconfd.config.wifioptions import WifiDevice, WifiIface

_HW_MODES = {"11b": "b", "11g": "g", "11a": "a", "11bg": "g"}

# Channel number in the middle of each wide channel of the 5 GHz band (IEEE 802.11-2016, annex E)
_CENTRES = {
    40: (38, 46, 54, 62, 102, 110, 118, 126, 134, 142, 151, 159),
    80: (42, 58, 106, 122, 138, 155),
    160: (50, 114),
}
# How far a 20 MHz channel can be from the middle of the wide one it is in
_REACH = {40: 2, 80: 6, 160: 14}

_WPA = {"psk": (1, "WPA-PSK"), "psk2": (2, "WPA-PSK"), "psk-mixed": (3, "WPA-PSK"),
        "wpa": (1, "WPA-EAP"), "wpa2": (2, "WPA-EAP"), "wpa-mixed": (3, "WPA-EAP")}
_CIPHERS = {"tkip": "TKIP", "ccmp": "CCMP", "aes": "CCMP"}


def isHexString(data: str) -> bool:
    """Test if a string contains only hex digits.

    >>> isHexString("00fF"), isHexString("xyz"), isHexString("")
    (True, False, False)
    """
    return bool(data) and all(digit in "0123456789abcdefABCDEF" for digit in data)


def hostapd_conf(device: WifiDevice, iface: WifiIface, ifname: str, bridge: str | None, control: str) -> str:
    """Return hostapd.conf for one access point.

    Args:
        device, iface: the options.
        ifname: its network link.
        bridge: the bridge that hostapd puts the link into, or None.
        control: directory for hostapd's control sockets.

    Raises:
        ConfigError: an option has a value that means nothing.
    """
    lines = [f"interface={ifname}", "driver=nl80211", f"ctrl_interface={control}"]
    if bridge:
        lines.append(f"bridge={bridge}")
    lines += [ssid_line(iface.ssid), *_radio(device, iface), *_limits(device, iface)]
    if device.htmode:
        lines += _high_throughput(device)
        if device.htmode.startswith("VHT"):
            lines += _very_high_throughput(device)
    return "\n".join([*lines, *_security(iface)]) + "\n"


def ssid_line(ssid: str) -> str:
    """Return the line with the network's name; names that a line cannot hold go as hexadecimal digits.

    Raises:
        ConfigError: it has not 1 to 32 bytes.
    """
    raw = ssid.encode("utf-8", "surrogateescape")
    if not 1 <= len(raw) <= 32:
        raise ConfigError(f"cannot use {ssid!r} as the name of a wireless network: it must have 1 to 32 bytes")
    plain = all(32 <= byte < 127 for byte in raw) and ssid == ssid.strip()
    return f"ssid={ssid}" if plain else f"ssid2={raw.hex()}"


def _hw_mode(device: WifiDevice) -> str:
    if device.hwmode is None:
        return "a" if device.channel > 14 else "g"
    if device.hwmode not in _HW_MODES:
        raise ConfigError(f"cannot use hwmode {device.hwmode!r}: it is not one of {', '.join(_HW_MODES)}")
    return _HW_MODES[device.hwmode]


def _radio(device: WifiDevice, iface: WifiIface) -> Iterator[str]:
    mode = _hw_mode(device)
    if device.country:
        yield f"country_code={device.country}"
        yield "ieee80211d=1"
        if iface.doth and mode == "a":
            yield "ieee80211h=1"
    yield f"hw_mode={mode}"
    yield f"channel={device.channel}"
    if device.beacon_int is not None:
        yield f"beacon_int={device.beacon_int}"
    if device.rts is not None:
        yield f"rts_threshold={device.rts}"
    if device.frag is not None:
        yield f"fragm_threshold={device.frag}"


def _limits(device: WifiDevice, iface: WifiIface) -> Iterator[str]:
    if iface.maxassoc is not None:
        yield f"max_num_sta={iface.maxassoc}"
        yield "no_probe_resp_if_max_sta=1"
    if iface.hidden:
        yield "ignore_broadcast_ssid=2"
    if iface.isolate:
        yield "ap_isolate=1"
    if iface.short_preamble:
        yield "preamble=1"
    # 802.11n has no rates without WMM
    yield f"wmm_enabled={int(iface.wmm or bool(device.htmode))}"


def _centre(channel: int, width: int) -> int:
    for centre in _CENTRES[width]:
        if abs(channel - centre) <= _REACH[width]:
            return centre
    raise ConfigError(f"cannot use channel {channel} with {width} MHz: it is in no such wide channel")


def _width(device: WifiDevice) -> int:
    """Return the channel width in MHz that htmode stands for."""
    mode = device.htmode or ""
    known = ("HT20", "HT40", "HT40+", "HT40-", "VHT20", "VHT40", "VHT80", "VHT160")
    if mode not in known:
        raise ConfigError(f"cannot use htmode {mode!r}: it is not one of {', '.join(known)}")
    return int(mode.strip("VHT+-"))


def _high_throughput(device: WifiDevice) -> Iterator[str]:
    """Yield the lines of 802.11n."""
    capabilities = []
    if _width(device) > 20:
        mode = str(device.htmode)
        if mode[-1] in "+-":
            capabilities.append(f"HT40{mode[-1]}")
        elif _hw_mode(device) == "a":
            capabilities.append("HT40+" if device.channel < _centre(device.channel, 40) else "HT40-")
        else:
            capabilities.append("HT40+" if device.channel < 8 else "HT40-")
    stbc = min(device.rx_stbc, 3)
    capabilities += [name for wanted, name in (
        (device.ldpc, "LDPC"), (device.short_gi_20, "SHORT-GI-20"), (device.short_gi_40, "SHORT-GI-40"),
        (device.tx_stbc, "TX-STBC"), (stbc, "RX-STBC" + "123"[:stbc]),
        (device.max_amsdu, "MAX-AMSDU-7935"), (device.dsss_cck_40, "DSSS_CCK-40")) if wanted]
    yield "ieee80211n=1"
    if capabilities:
        yield "ht_capab=" + "".join(f"[{name}]" for name in capabilities)
    if device.require_mode == "n":
        yield "require_ht=1"


def _very_high_throughput(device: WifiDevice) -> Iterator[str]:
    """Yield the lines of 802.11ac."""
    width, stbc = _width(device), min(device.rx_stbc, 4)
    capabilities = [name for wanted, name in (
        (device.vht_max_mpdu in (7991, 11454), f"MAX-MPDU-{device.vht_max_mpdu}"), (width == 160, "VHT160"),
        (device.rxldpc, "RXLDPC"), (device.short_gi_80, "SHORT-GI-80"), (device.short_gi_160, "SHORT-GI-160"),
        (device.tx_stbc_2by1, "TX-STBC-2BY1"), (stbc, "RX-STBC-" + "1234"[:stbc]),
        (device.rx_antenna_pattern, "RX-ANTENNA-PATTERN"), (device.tx_antenna_pattern, "TX-ANTENNA-PATTERN"))
        if wanted]
    yield "ieee80211ac=1"
    if capabilities:
        yield "vht_capab=" + "".join(f"[{name}]" for name in capabilities)
    if device.require_mode == "ac":
        yield "require_vht=1"
    yield f"vht_oper_chwidth={ {20: 0, 40: 0, 80: 1, 160: 2}[width]}"
    if width > 20:
        yield f"vht_oper_centr_freq_seg0_idx={_centre(device.channel, width)}"


def _security(iface: WifiIface) -> Iterator[str]:
    if iface.encryption in ("none", "open"):
        yield "wpa=0"
        return
    kind, *suffixes = iface.encryption.split("+")
    if kind not in _WPA or not set(suffixes) <= set(_CIPHERS):
        raise ConfigError(f"cannot use encryption {iface.encryption!r}: it is none, or one of {', '.join(_WPA)}, "
                          "with +ccmp, +aes or +tkip after it if wanted")
    version, management = _WPA[kind]
    ciphers = " ".join(dict.fromkeys(_CIPHERS[suffix] for suffix in suffixes)) or "CCMP"
    yield f"wpa={version}"
    if management == "WPA-PSK":
        yield key_line("wpa_passphrase", "wpa_psk", iface.key)
    else:
        yield from _radius(iface)
    roaming = " " + management.replace("WPA", "FT") if iface.ieee80211r else ""
    yield f"wpa_key_mgmt={management}{roaming}"
    yield f"wpa_pairwise={ciphers}"
    yield f"rsn_pairwise={ciphers}"
    if iface.ieee80211r:
        yield from _roaming(iface)
    elif iface.nasid:
        yield f"nas_identifier={iface.nasid}"


def key_line(passphrase: str, psk: str, key: str | None) -> str:
    """Return the line with the key: 64 hexadecimal digits are the key itself, else it is a pass phrase.

    Raises:
        ConfigError: it is neither.
    """
    if key and len(key) == 64 and isHexString(key):
        return f"{psk}={key}"
    if not key or not 8 <= len(key) <= 63 or not all(32 <= ord(letter) < 127 for letter in key):
        raise ConfigError("cannot use the key of the wireless network: it must have 8 to 63 printable ASCII "
                          "characters, or 64 hexadecimal digits")
    return f"{passphrase}={key}"


def _radius(iface: WifiIface) -> Iterator[str]:
    if not iface.auth_server:
        raise ConfigError(f"cannot use encryption {iface.encryption}: it needs auth_server")
    yield "ieee8021x=1"
    yield f"auth_server_addr={iface.auth_server}"
    yield f"auth_server_port={iface.auth_port}"
    yield f"auth_server_shared_secret={iface.auth_secret or ''}"
    if iface.acct_server:
        yield f"acct_server_addr={iface.acct_server}"
        yield f"acct_server_port={iface.acct_port}"
        yield f"acct_server_shared_secret={iface.acct_secret or ''}"
        yield f"radius_acct_interim_interval={iface.acct_interval}"
    if iface.ownip:
        yield f"own_ip_addr={iface.ownip}"
    yield f"dynamic_vlan={iface.dynamic_vlan}"


def _roaming(iface: WifiIface) -> Iterator[str]:
    """Yield the lines of 802.11r."""
    yield f"nas_identifier={iface.nasid or iface.r1_key_holder}"
    yield f"mobility_domain={iface.mobility_domain}"
    yield f"r0_key_lifetime={iface.r0_key_lifetime}"
    yield f"r1_key_holder={iface.r1_key_holder}"
    yield f"reassociation_deadline={iface.reassociation_deadline}"
    yield f"pmk_r1_push={int(iface.pmk_r1_push)}"
    for holder in iface.r0kh:
        yield f"r0kh={holder.replace(',', ' ')}"
    for holder in iface.r1kh:
        yield f"r1kh={holder.replace(',', ' ')}"


def supplicant_conf(iface: WifiIface) -> str:
    """Return wpa_supplicant.conf for a station.

    Raises:
        ConfigError: an option has a value that means nothing.
    """
    lines = [f"ssid={iface.ssid.encode('utf-8', 'surrogateescape').hex()}"]
    kind = iface.encryption.split("+")[0]
    if kind in ("none", "open"):
        lines.append("key_mgmt=NONE")
    elif kind not in _WPA:
        raise ConfigError(f"cannot use encryption {iface.encryption!r}: it is none, or one of {', '.join(_WPA)}")
    elif _WPA[kind][1] == "WPA-PSK":
        line = key_line("psk", "psk", iface.key)
        lines += ["key_mgmt=WPA-PSK", line if isHexString(line[4:]) and len(line) == 68 else f'psk="{line[4:]}"']
    else:
        lines += ["key_mgmt=WPA-EAP", f"identity={(iface.identity or '').encode().hex()}",
                  f"password={(iface.password or '').encode().hex()}"]
    return "network={\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
