"""Whatever way leads to a configuration, the same is in force; and nothing is after it was unloaded."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from paradrop.backend.pdconfd.config.effects import Step
from paradrop.backend.pdconfd.config.manager import ConfigManager

names = st.sampled_from("abc")


@st.composite
def sections(draw: st.DrawFn) -> str:
    """One section of any type, with names out of so few that they often meet."""
    name, other, number = draw(names), draw(names), draw(st.integers(1, 2))
    bridge = draw(st.sampled_from(["", " option type bridge\n option bridge_empty 1\n"]))
    owner = draw(st.sampled_from(["", " #one", " #two"]))
    return draw(st.sampled_from([
        f"config interface {name}{owner}\n option proto static\n option ifname v{other}\n"
        f" option ipaddr 10.0.{number}.1\n option netmask 255.255.255.0\n{bridge}",
        f"config interface {name}\n option proto dhcp\n option ifname {other}.{number}\n",
        f"config dhcp {name}\n option interface {other}\n option start {number}\n",
        f"config dnsmasq {name}{owner}\n list interface {other}\n",
        f"config dnsmasq{owner}\n option cachesize {number}\n",
        f"config domain\n option name {name}\n option ip 1.1.1.{number}\n",
        f"config zone{owner}\n option name {name}\n list network {other}\n option masq {number - 1}\n",
        f"config forwarding{owner}\n option src {name}\n option dest {other}\n",
        f"config redirect{owner}\n option src {name}\n option proto udp\n option dest_port {number}\n",
        f"config wifi-device {name}\n option type auto\n option channel {number}\n",
        f"config wifi-device {name}\n option type auto\n option phy phy{number}\n",
        f"config wifi-iface {name}\n option device {other}\n option network {draw(names)}\n",
        f"config zone\n option name {name}\n option input NONSENSE\n",
    ]))


configurations = st.lists(sections(), max_size=8).map("".join)


class World:
    """What would be in force if every command worked."""

    def __init__(self, directory: str) -> None:
        self.file = Path(directory) / "config"
        self.manager = ConfigManager(directory, execCommands=False)
        self.there: Counter[Step] = Counter()

    def take(self) -> None:
        """Follow the commands of the last load."""
        for command in self.manager.getPreviousCommands():
            assert command.step is not None
            if command.step.undo is None:
                continue  # it would be found out while executing
            if command.undoes is None:
                self.there[command.step] += 1
                assert not command.step.shared or self.there[command.step] == 1, "done twice"
            else:
                self.there[command.step] -= 1
                assert self.there[command.step] >= 0, "undone before it was done"
        self.there = +self.there

    def load(self, text: str) -> None:
        self.file.write_text(text)
        self.manager.loadConfig(str(self.file))
        self.take()


def in_force(there: Counter[Step], world: World) -> Counter[str]:
    """What is in force; names that were made up differ from life to life."""
    found: Counter[str] = Counter()
    made_up = {config.name for config in world.manager.currentConfig.values() if config.anonymous}
    for step, count in there.items():
        text = repr(step)
        for name in made_up:
            text = text.replace(name, "SOME")
        found[text] += count
    return found


@settings(max_examples=150)
@given(st.lists(configurations, min_size=1, max_size=4))
def test_the_way_does_not_matter(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        wandering, direct = World(one), World(other)
        direct.manager.writeDir = one
        for text in texts:
            wandering.load(text)
        direct.load(texts[-1])
        assert in_force(wandering.there, wandering) == in_force(direct.there, direct)
        problems = [{config.getTypeAndName()[0]: config.problem for config in world.manager.currentConfig.values()
                     if not config.anonymous} for world in (wandering, direct)]
        assert problems[0] == problems[1]
        wandering.manager.loadConfig(str(wandering.file))
        assert wandering.manager.getPreviousCommands() == []
        wandering.manager.unload()
        wandering.take()
        assert in_force(wandering.there, wandering) == Counter()
