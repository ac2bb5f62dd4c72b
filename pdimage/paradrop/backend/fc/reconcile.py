"""Makes the router agree with the chute store after an update was cut short by a crash or a loss of power.

The store decides, as an update is done the moment its chute is saved: a chute that it has is brought to what it says of
it, one that it has not leaves nothing behind. Only chutes that the journal names are looked at, so nothing that
works, or is somebody else's, is touched. Everything here may be cut short too and is simply done again.
"""

import logging
import shutil

from paradrop.backend.fc import journal
from paradrop.backend.fc.chutestorage import ChuteStorage
from paradrop.backend.pdconfd import client
from paradrop.lib import descriptor, settings
from paradrop.lib.config import dockerconfig, osconfig
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils import containers, dockerapi, netns
from paradrop.lib.utils.dockerspec import container_name

log = logging.getLogger(__name__)

def reconcile(storage: ChuteStorage) -> bool:
    """Set right what the journal names. Return False if something could not be; it stays in the journal then."""
    entries = journal.unfinished()
    names = sorted(entries)
    if not names:
        return True
    if storage.unreadable:
        log.error("an update of %s was cut short, but the chute store cannot be read; nothing is set right",
                  ", ".join(names))
        return False
    log.warning("an update of %s was cut short; setting it right", ", ".join(names))
    for name in names:
        if storage.getChute(name) is not None:
            dockerconfig.bringBackVolumeDirs(name)  # before DHCP servers start, which have their leases there
    osconfig.reconcile(storage.getChuteList(), names)
    if settings.PDCONFD_ENABLED:
        client.reloadAll()
    good = True
    for name in names:
        try:
            _restore_containers(name, storage)
            if storage.getChute(name) is None:
                _remove_directories(name, entries[name])
            journal.end(name)
        except ParadropError as error:
            log.error("cannot set right the chute %s: %s", name, error.message)
            good = False
    netns.sweep(wire.external for chute in storage.getChuteList() for wire in dockerapi.wires(chute))
    return good


def _remove_directories(name: str, made: list[str]) -> None:
    dockerconfig.removeVolumeDirs(name)
    for directory in made:
        shutil.rmtree(directory, ignore_errors=True)


def _restore_containers(name: str, storage: ChuteStorage) -> None:
    """Remove the containers and images of a chute that the store does not have, and give the others their names."""
    chute = storage.getChute(name)
    keep = containers.recorded(chute)
    for container in containers.ours(name):
        if container["Id"] not in keep.values():
            containers.remove(container["Id"])
    if chute is None:
        containers.remove_network(name)
    else:
        spec = descriptor.parse(chute.descriptor)
        for service, number in keep.items():
            containers.rename(number, container_name(spec, service))
            if chute.state != "running":
                containers.stop(number)
    for image in set(containers.our_images(name)) - containers.owned_images(chute):
        containers.remove_image(image)
