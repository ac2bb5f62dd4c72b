"""Options of the wireless sections, by the names that UCI has for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WifiDevice:
    """Options of ``wifi-device``: one radio. Without ``ifname`` the section's name is that of its interface."""

    type: str
    channel: int = 1
    phy: str | None = None
    macaddr: str | None = None
    ifname: str | None = None
    hwmode: str | None = None
    txpower: int | None = None
    country: str | None = None
    require_mode: str | None = None
    htmode: str | None = None
    beacon_int: int | None = None
    frag: int | None = None
    rts: int | None = None
    short_gi_20: bool = False
    short_gi_40: bool = False
    short_gi_80: bool = False
    short_gi_160: bool = False
    tx_stbc: int = 0
    rx_stbc: int = 0
    tx_stbc_2by1: bool = False
    dsss_cck_40: bool = False
    ldpc: bool = False
    rxldpc: bool = False
    max_amsdu: bool = False
    rx_antenna_pattern: bool = False
    tx_antenna_pattern: bool = False
    vht_max_mpdu: int | None = None


@dataclass(frozen=True)
class WifiIface:
    """Options of ``wifi-iface``: one network on a radio."""

    device: str
    mode: str = "ap"
    ssid: str = "Paradrop"
    network: str = "lan"
    encryption: str = "none"
    key: str | None = None
    hidden: bool = False
    wmm: bool = True
    maxassoc: int | None = None
    ifname: str | None = None
    isolate: bool = False
    doth: bool = True
    short_preamble: bool = True
    auth_server: str | None = None
    auth_port: int = 1812
    auth_secret: str | None = None
    acct_server: str | None = None
    acct_port: int = 1813
    acct_secret: str | None = None
    acct_interval: int = 300
    nasid: str | None = None
    ownip: str | None = None
    dynamic_vlan: int = 0
    identity: str | None = None
    password: str | None = None
    ieee80211r: bool = False
    mobility_domain: str = "4f57"
    r0_key_lifetime: int = 10000
    r1_key_holder: str = "00004f577274"
    reassociation_deadline: int = 1000
    r0kh: tuple[str, ...] = ()
    r1kh: tuple[str, ...] = ()
    pmk_r1_push: bool = False
