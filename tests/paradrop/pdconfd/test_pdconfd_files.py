"""The files for daemons: judged by the daemons themselves."""

import shutil
import subprocess
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from namespaces import Namespace

from paradrop.backend.pdconfd.config import run
from paradrop.backend.pdconfd.config.base import ConfigError
from paradrop.backend.pdconfd.config.effects import StartDaemon
from paradrop.backend.pdconfd.config.hostapd import hostapd_conf, ssid_line, supplicant_conf
from paradrop.backend.pdconfd.config.manager import ConfigManager
from paradrop.backend.pdconfd.config.run import Runner, daemon_pid
from paradrop.backend.pdconfd.config.wifioptions import WifiDevice, WifiIface

Write = Callable[[str, str], str]

PSK = {"encryption": "psk2", "key": "eight888"}
RADIUS = {"auth_server": "10.0.0.1", "auth_secret": "x", "acct_server": "10.0.0.2", "acct_secret": "y",
          "ownip": "10.0.0.9"}

DEVICES = {
    "plain": WifiDevice("auto"),
    "b": WifiDevice("auto", channel=11, hwmode="11b"),
    "country": WifiDevice("auto", channel=36, hwmode="11a", country="US", beacon_int=100, rts=500, frag=1000),
    "ht20": WifiDevice("auto", channel=6, hwmode="11g", htmode="HT20", require_mode="n", short_gi_20=True),
    "ht40": WifiDevice("auto", channel=36, htmode="HT40+", short_gi_40=True, tx_stbc=1, rx_stbc=3, dsss_cck_40=True,
                       ldpc=True, max_amsdu=True),
    "vht80": WifiDevice("auto", channel=44, htmode="VHT80", require_mode="ac", short_gi_80=True, rxldpc=True,
                        tx_stbc_2by1=True, rx_stbc=1, rx_antenna_pattern=True, tx_antenna_pattern=True,
                        vht_max_mpdu=11454),
    "vht160": WifiDevice("auto", channel=100, htmode="VHT160", short_gi_160=True),
    "vht20": WifiDevice("auto", channel=36, htmode="VHT20"),
}
IFACES = {
    "open": WifiIface("d"),
    "psk2": WifiIface("d", **PSK),
    "hexkey": WifiIface("d", encryption="psk2+ccmp", key="0f" * 32),
    "mixed": WifiIface("d", encryption="psk-mixed+tkip+aes", key="k" * 63),
    "radius": WifiIface("d", encryption="wpa2", nasid="n", **RADIUS),
    "roaming": WifiIface("d", ieee80211r=True, r0kh=("02:00:00:00:03:00,r0kh-1,000102030405060708090a0b0c0d0e0f",),
                         r1kh=("02:00:00:00:03:00,02:00:00:00:03:01,000102030405060708090a0b0c0d0e0f",), **PSK),
    "odd": WifiIface("d", ssid=" ünï\"#", hidden=True, wmm=False, maxassoc=5, isolate=True, doth=False,
                     short_preamble=False),
}


def judged_by_hostapd(text: str, directory: Path) -> str:
    """Return what hostapd says about a file, with no radio but otherwise in earnest."""
    if shutil.which("hostapd") is None:
        pytest.skip("not installed: hostapd")
    conf = directory / "hostapd.conf"
    conf.write_text(text.replace("driver=nl80211", "driver=none"))
    heard = directory / "heard"
    with heard.open("w") as file, subprocess.Popen(["hostapd", str(conf)], stdout=file, stderr=file) as process:
        deadline = time.monotonic() + 10
        while process.poll() is None and "AP-ENABLED" not in heard.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        process.wait(10)
    return heard.read_text()


@pytest.mark.parametrize(("device", "iface"), [
    *product(DEVICES, ["open"]), *product(["plain"], IFACES), ("vht80", "roaming"),
])
def test_hostapd_accepts_its_file(device: str, iface: str, tmp_path: Path) -> None:
    text = hostapd_conf(DEVICES[device], IFACES[iface], "none0", None, str(tmp_path))
    said = judged_by_hostapd(text, tmp_path)
    assert "AP-ENABLED" in said and "Line " not in said, text + said


def test_hostapd_refuses_a_file_with_a_mistake(tmp_path: Path) -> None:
    text = hostapd_conf(DEVICES["plain"], IFACES["open"], "none0", None, str(tmp_path)) + "nonsense=1\n"
    assert "unknown configuration item 'nonsense'" in judged_by_hostapd(text, tmp_path)


@pytest.mark.parametrize(("device", "lines"), [
    ("plain", ["hw_mode=g", "channel=1"]),
    ("country", ["country_code=US", "ieee80211d=1", "ieee80211h=1", "rts_threshold=500", "fragm_threshold=1000"]),
    ("ht40", ["ht_capab=[HT40+][LDPC][SHORT-GI-40][TX-STBC][RX-STBC123][MAX-AMSDU-7935][DSSS_CCK-40]"]),
    ("vht80", ["ht_capab=[HT40+][RX-STBC1]", "vht_oper_chwidth=1", "vht_oper_centr_freq_seg0_idx=42", "require_vht=1"]),
    ("vht160", ["vht_oper_chwidth=2", "vht_oper_centr_freq_seg0_idx=114"]),
    ("vht20", ["vht_oper_chwidth=0", "ieee80211ac=1"]),
])
def test_lines_about_the_radio(device: str, lines: list[str]) -> None:
    text = hostapd_conf(DEVICES[device], IFACES["open"], "w0", "br-lan", "/run/x")
    assert set(lines) <= set(text.splitlines()) and "bridge=br-lan" in text


@pytest.mark.parametrize(("iface", "lines"), [
    ("open", ["wpa=0"]),
    ("psk2", ["wpa=2", "wpa_passphrase=eight888", "wpa_key_mgmt=WPA-PSK", "rsn_pairwise=CCMP", "wpa_pairwise=CCMP"]),
    ("hexkey", ["wpa_psk=" + "0f" * 32]),
    ("mixed", ["wpa=3", "wpa_pairwise=TKIP CCMP"]),
    ("radius", ["wpa_key_mgmt=WPA-EAP", "auth_server_addr=10.0.0.1", "auth_server_port=1812", "nas_identifier=n"]),
    ("roaming", ["wpa_key_mgmt=WPA-PSK FT-PSK", "mobility_domain=4f57"]),
    ("odd", ["ssid2=20c3bc6ec3af2223", "ignore_broadcast_ssid=2", "max_num_sta=5", "ap_isolate=1", "wmm_enabled=0"]),
])
def test_lines_about_the_network(iface: str, lines: list[str]) -> None:
    assert set(lines) <= set(hostapd_conf(DEVICES["plain"], IFACES[iface], "w0", None, "/run/x").splitlines())


@pytest.mark.parametrize(("device", "iface", "what"), [
    ({"hwmode": "11x"}, {}, "hwmode '11x'"),
    ({"htmode": "HT80"}, {}, "htmode 'HT80'"),
    ({"htmode": "VHT80", "channel": 165}, {}, "channel 165 with 40 MHz"),
    ({}, {"encryption": "rot13"}, "encryption 'rot13'"),
    ({}, {"encryption": "psk2+rot13", "key": "eight888"}, "encryption"),
    ({}, {"encryption": "psk2"}, "8 to 63 printable"),
    ({}, {"encryption": "psk2", "key": "short"}, "8 to 63 printable"),
    ({}, {"encryption": "wpa2"}, "needs auth_server"),
    ({}, {"ssid": "x" * 33}, "1 to 32 bytes"),
])
def test_values_that_mean_nothing_are_refused(device: dict[str, str], iface: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        hostapd_conf(WifiDevice("auto", **device), WifiIface("d", **iface), "w0", None, "/run/x")  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_a_network_name_is_one_line_or_refused(ssid: str) -> None:
    try:
        line = ssid_line(ssid)
    except ConfigError:
        return
    assert len(line.splitlines()) == 1 and line.startswith(("ssid=", "ssid2="))
    key, _, value = line.partition("=")
    assert (bytes.fromhex(value) if key == "ssid2" else value.encode()) == ssid.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("iface", ["open", "psk2", "hexkey", "odd"])
def test_wpa_supplicant_accepts_its_file(iface: str, tmp_path: Path) -> None:
    if shutil.which("wpa_supplicant") is None:
        pytest.skip("not installed: wpa_supplicant")
    conf = tmp_path / "wpa.conf"
    conf.write_text(supplicant_conf(IFACES[iface]))
    with subprocess.Popen(["wpa_supplicant", "-c", str(conf), "-i", "lo", "-D", "none", "-d"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        time.sleep(0.3)
        process.terminate()
        said, _ = process.communicate(timeout=10)
    assert "Priority group 0" in said and "Line " not in said, said


NETWORKS = "".join(f"""
config interface n{n}
    option proto static
    option ifname eth{n}
    option ipaddr 10.0.{n}.1
    option netmask 255.255.255.0
config dhcp n{n}
    option interface n{n}
    option leasetime {lease}
    list dhcp_option option:router,10.0.{n}.2
    list dhcp_option 42,10.0.{n}.3
""" for n, lease in enumerate(("12h", "infinite")))


@pytest.mark.parametrize("options", [
    "",
    "list interface n1\n option noresolv 1\n list server 8.8.8.8\n list server /example.org/1.1.1.1#5353",
    "option domain home\n option authoritative 0\n option cachesize 0\n option dhcpleasemax 10\n option expandhosts 0",
    "option enable_tftp 1\n option tftp_root /tmp\n option dhcp_boot pxelinux.0,server,10.0.0.9",
])
def test_dnsmasq_accepts_its_file(options: str, dry: ConfigManager, write: Write, tmp_path: Path) -> None:
    if shutil.which("dnsmasq") is None:
        pytest.skip("not installed: dnsmasq")
    write("all", NETWORKS + f"config dnsmasq d\n {options}\nconfig domain\n option name x.org\n option ip 10.0.0.1\n")
    dry.loadConfig()
    effect = next(command.effect for command in dry.getPreviousCommands() if isinstance(command.effect, StartDaemon))
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text(effect.text)
    done = subprocess.run(["dnsmasq", "--test", f"--conf-file={conf}"], capture_output=True, text=True)
    assert done.returncode == 0 and "syntax check OK" in done.stderr, effect.text + done.stderr


def test_hostapd_is_started_known_and_ended(router: Namespace, tmp_path: Path) -> None:
    if shutil.which("hostapd") is None:
        pytest.skip("not installed: hostapd")
    place = str(tmp_path / "hostapd-a b")
    text = hostapd_conf(DEVICES["plain"], IFACES["psk2"], "none0", None, str(tmp_path / "ctrl"))
    start = StartDaemon(("hostapd", "-P", f"{place}.pid", "-B", f"{place}.conf"), f"{place}.conf",
                        text.replace("driver=nl80211", "driver=none"), f"{place}.pid")
    runner = Runner(router.prefix)
    done = runner.perform(start)
    assert done.status == 0 and router.processes() == ["hostapd"]
    assert daemon_pid(start.pidfile, start.conf) == done.pid
    assert Path(start.conf).stat().st_mode & 0o777 == 0o600, "it has a key in it"
    again = runner.perform(start)
    assert again.pid != done.pid and router.processes() == ["hostapd"]
    assert runner.perform(start.stop()).status == 0
    assert router.processes() == [] and list(tmp_path.glob("hostapd*")) == []
    assert runner.perform(start.stop()).status == 0, "stopping what has gone is no failure"


@pytest.mark.parametrize("before, after", [("128\n", "1024\n"), ("8192\n", "8192\n"), ("nonsense\n", "nonsense\n")])
def test_daemons_may_be_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(before)
    monkeypatch.setattr(run, "WATCHERS", limit)
    Runner().perform(StartDaemon(("false",), f"{tmp_path}/conf", "", f"{tmp_path}/pid"))
    assert limit.read_text() == after
