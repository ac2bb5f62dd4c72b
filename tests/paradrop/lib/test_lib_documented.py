"""Every documented name of paradrop.lib is there and takes the documented arguments."""

import doctest
import importlib
import inspect

import pytest

DOCUMENTED = """
chute: Chute(descriptor, strip) Chute.appendCache(key, val) Chute.delCache(key) Chute.dumpCache() Chute.fullDump()
chute: Chute.getCache(key) Chute.isValid() Chute.setCache(key, val)
settings: addSetting(key, value) parseValue(key) updateSettings(slist)
config.configservice: reloadAll(update) reloadQos(update)
config.devices: getSystemDevices(update) isVirtual(ifname) isWAN(ifname) isWireless(ifname)
config.devices: setConfig(chuteName, sections, filepath) setSystemDevices(update)
config.dhcp: getVirtDHCPSettings(update) setVirtDHCPSettings(update)
config.firewall: findMatchingInterface(iface_name, interfaces) getDeveloperFirewallRules(update)
config.firewall: getOSFirewallRules(update) setOSFirewallRules(update)
config.network: abortNetworkConfig(update) getNetworkConfig(update) getOSNetworkConfig(update)
config.network: getVirtNetworkConfig(update) interfaceDefsEqual(iface1, iface2) reclaimNetworkResources(chute)
config.network: setOSNetworkConfig(update)
config.osconfig: revertConfig(update, theType)
config.pool: NetworkPool(network, subnetSize) NumericPool(digits) ResourcePool(values, numValues) ResourcePool.next()
config.pool: ResourcePool.release(item) ResourcePool.reserve(item, strict)
config.uciutils: appendListItem(options, name, value) removeConfigs(chute, cacheKeys, filepath)
config.uciutils: restoreConfigFile(chute, configname) setConfig(chute, old, cacheKeys, filepath)
config.uciutils: setList(options, name, values)
config.wifi: getOSWirelessConfig(update) setOSWirelessConfig(update)
utils.addresses: areWanPortsAvailable(portRange, takenPorts, chuteStor, name) checkPhyExists(radioid)
utils.addresses: getChuteIntf(name, netIntfs) getGatewayIntf(ch) getInternalIntfList(ch) getSubnet(ip1, sn1)
utils.addresses: getWANIntf(ch) incIpaddr(ipaddr, inc) isIpAvailable(ipaddr, chuteStor, name) isIpValid(ipaddr)
utils.addresses: isRadioPassedthrough(radioid, chuteStor, name) isSameSubnet(ip1, ip2)
utils.addresses: isStaMeshAvailable(chuteStor, name) isStaMeshOnRadio(radioid, chuteStor, name)
utils.addresses: isStaticIpAvailable(ipaddr, chuteStor, name) isWifiOnRadio(radioid, chuteStor, name)
utils.addresses: isWifiIntAvailable(radioid, numWifi, chuteStor, name) isWifiSSIDAvailable(ssid, chuteStor, name)
utils.addresses: maxIpaddr(ipaddr)
utils.pdos: basename(x) copy(a, b) copytree(a, b) doMount(part, mnt) doUnmount(mnt) exists(p) fixpath(p)
utils.pdos: getFileType(f) getFiletype(f) getMountCmd() isMount(mnt) isdir(a) isfile(a) ismount(p)
utils.pdos: makeExecutable(args) mkdir(p) move(a, b) open(p, mode) oscall(cmd, get) remove(a) symlink(a, b)
utils.pdos: readFile(filename, array, delimiter) syncFS() unlink(p) write(filename, data, mode)
utils.pdos: writeFile(filename, line, mode)
utils.pdosq: makedirs(p)
utils.restart: reloadChutes() updateStatus(update)
utils.storage: PDStorage(filename, reactor, saveTimer) PDStorage.attrSaveable() PDStorage.exportAttr(data)
utils.storage: PDStorage.importAttr(pyld) PDStorage.loadFromDisk() PDStorage.saveToDisk()
utils.uci: UCIConfig(filepath) UCIConfig.addConfig(config, options) UCIConfig.addConfigs(configs)
utils.uci: UCIConfig.backup(backupToken) UCIConfig.checkWanConfig(internalid) UCIConfig.delConfig(config, options)
utils.uci: UCIConfig.delConfigs(configs) UCIConfig.existsConfig(config, options)
utils.uci: UCIConfig.getChuteConfigs(internalid) UCIConfig.getConfig(config)
utils.uci: UCIConfig.getConfigIgnoreComments(config) UCIConfig.readConfig()
utils.uci: UCIConfig.restore(backupToken, saveBackup) UCIConfig.save(backupToken, internalid)
utils.uci: chuteConfigsMatch(chutePre, chutePost) configsMatch(a, b) getSystemConfigDir() getSystemPath(filename)
utils.uci: isMatch(a, b) isMatchIgnoreComments(a, b) setupArgParse() singleConfigMatches(a, b) stringify(a)
"""


def documented() -> list[tuple[str, str]]:
    found = []
    for line in DOCUMENTED.strip().splitlines():
        module, _, names = line.partition(": ")
        found += [(module, f"{call.strip()})") for call in names.split(")") if call.strip()]
    return found


@pytest.mark.parametrize(("module", "call"), documented())
def test_it_is_there(module: str, call: str) -> None:
    path, _, arguments = call.rstrip(")").partition("(")
    found = importlib.import_module(f"paradrop.lib.{module}")
    for part in path.split("."):
        found = getattr(found, part)
    names = [name for name in inspect.signature(found).parameters if name != "self"]
    wanted = arguments.split(", ") if arguments else []
    assert names[:len(wanted)] == wanted
    parameters = inspect.signature(found).parameters
    assert all(parameters[name].default is not inspect.Parameter.empty for name in names[len(wanted):])
    assert inspect.getdoc(found)


@pytest.mark.parametrize("module", ["settings", "utils.addresses", "utils.ucitext"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"paradrop.lib.{module}"))
    assert found.attempted and not found.failed
