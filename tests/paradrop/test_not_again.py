"""Mistakes that router platforms of this kind have made, and what keeps each from coming (back).

``COVERED`` names the tests of others; what is nobody's is tested here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paradrop.backend.exc import state
from paradrop.lib import settings
from paradrop.lib.chute import Chute
from paradrop.lib.config import uciutils
from paradrop.lib.utils import pdosq, uci

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "pdimage/paradrop"

COVERED = {
    "psk2 is WPA2": ["pdconfd/test_pdconfd_files.py::lines_about_the_network",
                     "pdconfd/test_pdconfd_files.py::hostapd_accepts_its_file"],
    "the fragmentation threshold is its own": ["pdconfd/test_pdconfd_files.py::lines_about_the_radio"],
    "a changed address replaces the old one": [
        "pdconfd/test_pdconfd_manager.py::a_changed_address_is_deleted_before_the_new_one_comes",
        "pdconfd/test_pdconfd_network.py::a_change_and_its_reverse_bring_everything_back"],
    "redirects go to the chute's own address": [
        "lib/test_lib_packets.py::clients_get_leases_and_redirects_reach_the_chute",
        "docker/test_docker_chutes.py::redirects_work_where_routers_filter_by_reverse_path"],
    "bridges are there because they are wanted": [
        "lib/test_lib_networks.py::golden", "pdconfd/test_pdconfd_network.py::a_bridge_joins_its_members"],
    "an unknown chute is answered": ["api/test_api_modern.py::unknown_things_are_404_at_once",
                                     "docker/test_docker_chutes.py::refusals_change_nothing"],
    "a bug leaves no client waiting": ["fc/test_fc_configurer.py::everybody_is_answered_and_the_queue_goes_on",
                                       "fc/test_fc_configurer.py::a_callback_that_raises_stops_nobody"],
    "an older backup is never restored": ["lib/test_lib_networks.py::an_older_backup_is_never_restored"],
    "addresses are given back after success only": [
        "lib/test_lib_networks.py::a_chute_keeps_what_it_had",
        "docker/test_docker_failures.py::a_failure_at_any_plan_leaves_the_router_as_it_was"],
    "images of others stay": ["docker/test_docker_images.py::documented_cleanup_raises_and_spares_others",
                              "docker/test_docker_images.py::a_failed_build_removes_its_own_leftovers_only",
                              "docker/test_docker_chutes.py::what_is_not_ours_is_left_alone"],
    "an update completes once": ["fc/test_fc_configurer.py::complete_counts_once"],
    "a failed delete keeps the record": [
        "docker/test_docker_failures.py::a_failure_at_any_plan_leaves_the_router_as_it_was"],
    "builds have their context": ["docker/test_docker_fetch.py::a_chute_is_built_from_a_directory",
                                  "docker/test_docker_fetch.py::a_chute_is_built_from_a_download"],
    "chutes restart in their order": ["fc/test_fc_configurer.py::restarts_come_first_and_in_order"],
    "nobody changes the router from elsewhere without a password": [
        "api/test_api_v1.py::other_networks_need_a_password",
        "api/test_api_modern.py::everything_needs_a_password_and_the_right_role"],
    "the chute store is written whole": [
        "fc/test_fc_chutestorage.py::a_failed_write_changes_nothing",
        "lib/test_lib_files.py::killed_at_any_moment_the_file_holds_the_last_save_or_the_one_under_way"],
    "policies of zones are enforced": ["pdconfd/test_pdconfd_network.py::nobody_comes_in_where_the_policy_says_so",
                                       "pdconfd/test_pdconfd_network.py::policies_hold_for_ipv6_and_neighbours"],
    "names are the same after a restart": ["lib/test_lib_networks.py::another_process_decides_the_same"],
    "a DHCP range has limit + 1 addresses, and says so": [
        "pdconfd/test_pdconfd_sections.py::the_range_ends_after_limit_more_addresses_or_with_the_network"],
    "forwarding sections count": ["pdconfd/test_pdconfd_sections.py::forwarding_from_zone_to_zone",
                                  "pdconfd/test_pdconfd_network.py::a_chute_reaches_the_world_only_through"],
    "the mode for tests starts": ["daemon/test_daemon.py::documented_arguments",
                                  "daemon/test_daemon.py::local_mode_leaves_the_system_alone"],
}


@pytest.mark.parametrize("name", sorted({name for names in COVERED.values() for name in names}))
def test_its_test_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    assert re.search(rf"^ *def test_{function}\w*\(", (HERE / file).read_text(), re.MULTILINE)


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node


def test_nothing_that_differs_from_start_to_start_decides() -> None:
    """hash() of a text has a salt of its own in every process."""
    assert not [path for path, call in calls() if ast.unparse(call.func) == "hash"]


def test_nothing_is_stored_as_pickle() -> None:
    imported = re.compile(r"^\s*(import|from)\s+(pickle|shelve|dill)\b", re.MULTILINE)
    assert not [path for path in SOURCE.rglob("*.py") if imported.search(path.read_text())]


def test_no_password_is_in_the_source() -> None:
    secret = re.compile(r"password|passwd|secret|auth_?config", re.IGNORECASE)
    given = [(path.name, ast.unparse(call)) for path, call in calls() for word in call.keywords
             if word.arg and secret.search(word.arg) and isinstance(word.value, ast.Constant) and word.value.value]
    assert not given


def test_the_router_listens_for_itself_only_unless_told() -> None:
    text = (SOURCE / "lib/settings.py").read_text()
    assert 'PDFCD_ADDRESS = "127.0.0.1"\n' in text and 'PDFCD_V1_NETWORKS = "127.0.0.0/8 ::1/128"\n' in text


@pytest.mark.parametrize("kind", ["start", "restart", "stop", "delete", "rollback"])
def test_what_is_not_there_is_refused(kind: str) -> None:
    assert state.refused(kind, None, Chute({"name": "nobody"})) == "No chute found with id: nobody"


def test_a_write_that_fails_aborts_the_update(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    chute = Chute({"name": "shop"})
    chute.setCache("osNetworkConfig", [({"type": "interface", "name": "v1"}, {"proto": "static"})])
    path = uci.getSystemPath("network")
    assert path.startswith(f"{settings.UCI_CONFIG_DIR}/")
    monkeypatch.setattr(pdosq, "replaceFile", fail)
    with pytest.raises(OSError, match="No space"):
        uciutils.setConfig(chute, None, ["osNetworkConfig"], path)
    assert Path(path).read_text() == ""
