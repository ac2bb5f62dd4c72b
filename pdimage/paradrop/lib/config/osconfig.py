"""Configuration of the router taken back: after a failed update, and after a crash in the middle of one."""

import logging
from collections.abc import Iterable

from paradrop.lib.chute import Chute
from paradrop.lib.config import uciutils
from paradrop.lib.config.parties import Update
from paradrop.lib.utils import uci

log = logging.getLogger(__name__)

# The UCI files that hold sections of chutes, and the cache keys where these are
FILES = {
    "network": ("osNetworkConfig",),
    "wireless": ("osWirelessConfig",),
    "firewall": ("osFirewallRules", "developerFirewallRules"),
    "dhcp": ("virtDHCPSettings",),
}


def revertConfig(update: Update, theType: str) -> None:
    """Bring a UCI file back to what it was before this update changed it.

    Args:
        update: the update.
        theType: network, wireless, firewall or dhcp.
    """
    uciutils.restoreConfigFile(update.new, theType)


def reconcile(chutes: Iterable[Chute], names: Iterable[str]) -> list[str]:
    """Make the UCI files say what the stored chutes have, whatever a crash left in them.

    Args:
        chutes: all chutes of the store.
        names: names of chutes that an update may have been adding; of others, sections that no chute of the store
            owns are left alone: they are somebody else's.

    Returns:
        The names of the files that were changed.
    """
    chutes = list(chutes)
    changed = []
    for filename, keys in FILES.items():
        file = uci.UCIConfig(uci.getSystemPath(filename))
        wanted = {str(chute.name): uciutils.owned(chute, keys) for chute in chutes}
        dirty = False
        for name in sorted({*wanted, *names}):
            there = file.getChuteConfigs(name)
            if not uci.chuteConfigsMatch(there, wanted.get(name, [])):
                file.delConfigs(there)
                file.addConfigs(wanted.get(name, []))
                dirty = True
        if dirty:
            log.warning("%s did not say what the chutes have; it does now", file.filepath)
            file.save()
            changed.append(filename)
        file.dropBackup(uciutils.TOKEN)
    return changed
