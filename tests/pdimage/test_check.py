"""What is wrong with a description is told at once, with file, line, path and what would be right."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pdimage.check import check, check_boards
from pdimage.description import Platform, load
from pdimage.errors import Mistakes
from tests.pdimage.workshop import Workshop

EVERYTHING_WRONG = """\
nmae: router
version: 1.0
compatible: {pc: yes}
platform:
  paradrop: "yes"
  requirements: gone.lock
  debian: [Bad_Name, "tar=1.34;rm"]
chutes:
  - path: gone
  - {}
  - path: broken
overlay: [gone-too]
templates:
  - {source: undefined.j2, target: ../etc/passwd}
  - {source: undefined.j2, target: etc/a}
  - {source: syntax.j2, target: etc/b}
  - {source: undefined.j2, target: /etc/c, mode: "9"}
hooks: [run.sh]
health:
  - {name: page}
  - {name: page, http: "ftp://x", seconds: 0}
metadata: {list: [1]}
persistent: [relative]
limits: {pre_install: soon}
resources: {memory: lots, processors: 0}
settings: {PDFCD_PROT: 1}
system: here
version: "2.0"
colour: blue
floor: "{{ nowhere }}"
"""



def test_all_mistakes_are_told_at_once(workshop: Workshop) -> None:
    workshop.file("broken/config.yaml", "name: broken\nnet: nothing\ndockerfile: {local: Dockerfile}\n")
    workshop.file("undefined.j2", "one\ntwo {{ three }}\n")
    workshop.file("syntax.j2", "{% if x %}\n\n{% endfor %}\n")
    found = workshop.mistakes(EVERYTHING_WRONG)
    assert found == (Path(__file__).parent / "everything-wrong.txt").read_text().splitlines()


@pytest.mark.parametrize(("text", "mistake"), [
    ("", "image.yaml:1: must be a mapping that begins with name and version"),
    ("[]", "image.yaml:1: must be a mapping that begins with name and version"),
    ("name: [", "image.yaml:1: is not YAML: expected the node content, but found '<stream end>'"),
    ("name: !!python/object:os.system x", "image.yaml:1: name: can't be used here: could not determine a constructor "
     "for the tag 'tag:yaml.org,2002:python/object:os.system'"),
    ("overlay: &a [*a]", "image.yaml:1: overlay[0]: is an alias of what holds it; write it out"),
    ("name: r\nversion: '1'\nbase: gone.yaml", "image.yaml:3: base: gone.yaml is not a file that is there; write a "
     "path relative to this file"),
    ("name: current\nversion: '1'", "image.yaml:1: name: 'current' cannot be the name of a release: use letters, "
     "digits and . _ + ~ : @ - (at most 200), not current, current~, failsafe, previous"),
    ("name: r\nversion: '1'\nboards: {a: {}, b: {}}", "image.yaml:3: boards: knows a, b; choose one with --board"),
    ("name: r\nversion: '1'\nboards: {a: {name: x}}", "image.yaml:3: boards.a.name: can only be said outside boards"),
    ("name: r\nversion: '1'\n3: x", "image.yaml:3: 3: the name must be text; put it in quotes"),
    ("name: r\nversion: '1'\ntemplates: [{source: image.yaml, target: .fussy/x}]", "image.yaml:3: templates[0].target: "
     "must not be below .fussy, which describes the release"),
    ("name: r\nversion: '1'\nvariables: {a: 1}\nfloor: '{{ b }}'", "image.yaml:4: floor: the template needs what is "
     "not there: 'b' is undefined; set it in variables, or correct the name"),
    ("name: r\nversion: '1'\nfloor: '2'", "image.yaml:3: floor: is above the version, 1: once in use, the release "
     "would refuse itself"),
    ("name: r\nversion: '1'\nhealth: [{name: x, http: 'http://[::1'}]", "image.yaml:3: health[0].http: must be "
     "an address such as 'http://127.0.0.1:9000/' (for example http: 'http://127.0.0.1/')"),
    ("name: r\nversion: '1'\nmetadata: {a: .inf}", "image.yaml:3: metadata.a: must be text, a number, true or false; "
     "put it in quotes"),
    ("name: r\nversion: '1'\nsettings: {PDFCD_PORT: web}", "image.yaml:3: settings.PDFCD_PORT: must be a number, as "
     "its default 14321"),
    ("name: r\nversion: '1'\nsettings: {DEBUG_MODE: 1}", "image.yaml:3: settings.DEBUG_MODE: must be true or false, "
     "as its default False"),
    ("name: r\nversion: '1'\nmachine: {processor: arm64}", "image.yaml:3: machine.processor: must be one of x86_64, "
     "aarch64, armv7l, armv6l, i686, ppc64le, s390x, riscv64, mips64 (for example processor: aarch64)"),
    ("name: r\nversion: '1'\nmachine: {python: '2.7'}", "image.yaml:3: machine.python: must be a version such as "
     "\"3.11\", the lowest that the router's programs run on (for example python: \"3.11\")"),
])
def test_one_mistake_is_told_alone(workshop: Workshop, text: str, mistake: str) -> None:
    name, version = "image.yaml:1: name: is missing", "image.yaml:1: version: is missing"
    assert [one for one in workshop.mistakes(text) if not one.startswith((name, version))] == [mistake]


def test_inheritance_joins_and_replaces(workshop: Workshop) -> None:
    workshop.file("base/files/etc/motd", "base")
    workshop.file("more/etc/issue", "more")
    workshop.describe({"name": "base", "version": "1", "compatible": ["a"], "platform": {"debian": ["tar", "gzip"]},
                       "overlay": ["files"], "metadata": {"a": 1, "b": 2},
                       "limits": {"pre_install": 10}, "persistent": ["/srv"],
                       "health": [{"name": "x", "command": ["true"]}, {"name": "y", "command": ["a"]}]},
                      "base/base.yaml")
    image = workshop.image({"base": "base/base.yaml", "name": "router", "version": "2", "compatible": ["b"],
                            "platform": {"paradrop": False, "debian": ["gzip", "zstd"]}, "overlay": ["more"],
                            "health": [{"name": "y", "command": ["b"]}], "metadata": {"b": 3}, "persistent": None})
    assert (image.name, image.version, image.compatible) == ("router", "2", ("b",))
    assert image.platform == Platform(paradrop=False, debian=("tar", "gzip", "zstd"))
    assert image.overlay == (workshop.place / "base/files", workshop.place / "more")
    assert [(one.name, one.command) for one in image.health] == [("x", ["true"]), ("y", ["b"])]
    assert (image.metadata, image.limits.pre_install, image.persistent) == ({"a": 1, "b": 3}, 10, ())
    assert [source.name for source in image.sources] == ["image.yaml", "base.yaml"]


def test_a_chute_takes_the_place_of_its_namesake_in_the_base(workshop: Workshop) -> None:
    for path, name in (("old/web", "name: shop\n"), ("mine", "name: shop\n"), ("old/dns", "")):
        workshop.file(f"{path}/config.yaml", f"{name}dockerfile: {{local: Dockerfile}}\n")
        workshop.file(f"{path}/Dockerfile", "FROM busybox\n")
    workshop.describe({"name": "base", "version": "1", "chutes": [{"path": "old/web"}, {"path": "old/dns"}]}, "b.yaml")
    image = workshop.image({"base": "b.yaml", "name": "r", "chutes": [{"path": "mine"}]})
    assert [(chute.name, chute.path) for chute in image.chutes] == [
        ("shop", workshop.place / "mine"), ("dns", workshop.place / "old/dns")]
    assert workshop.mistakes({"base": "b.yaml", "name": "r", "chutes": [{"path": "mine"}, {"path": "old/web"}]}) == [
        "image.yaml:5: chutes[1]: is called shop as chutes[0] is; give it a name"]


def test_items_without_a_sound_name_are_told_also_beside_those_of_a_base(workshop: Workshop) -> None:
    workshop.describe({"health": [{"name": "x", "command": ["true"]}], "persistent": ["/a"]}, "base.yaml")
    assert workshop.mistakes("base: base.yaml\nname: r\nversion: '1'\nhealth: [{name: [x], command: [a]}]\n"
                             "chutes: [{path: {}}, 3]\npersistent: [{}]\n") == [
        "image.yaml:4: health[1].name: must be text; put it in quotes (for example name: page)",
        "image.yaml:5: chutes[0].path: must be text; put it in quotes (for example path: ../chutes/hello-world)",
        "image.yaml:5: chutes[1]: must be a mapping of names to values",
        "image.yaml:6: persistent[1]: must be text; put it in quotes"]


def test_mistakes_in_a_base_name_the_base(workshop: Workshop) -> None:
    workshop.describe("version: '1'\n\ncolour: x\n", "base.yaml")
    assert workshop.mistakes("name: r\nbase: base.yaml\n") == [
        "base.yaml:3: colour: unknown; known here: " + ", ".join(KNOWN)]


def test_inheritance_in_a_circle_is_told_with_its_way(workshop: Workshop) -> None:
    workshop.describe("base: c.yaml", "b.yaml")
    workshop.describe("base: image.yaml", "c.yaml")
    assert workshop.mistakes("name: r\nversion: '1'\nbase: b.yaml") == [
        "c.yaml:1: base: goes round in a circle: image.yaml -> b.yaml -> c.yaml -> image.yaml; remove one of them"]


def test_boards_have_variables_and_differences(workshop: Workshop) -> None:
    workshop.file("port.j2", "{{ board }} {{ port }} {{ image.version }}\n")
    description = workshop.describe({
        "name": "r", "version": "1.{{ port }}", "variables": {"port": 1},
        "templates": [{"source": "port.j2", "target": "etc/port"}],
        "boards": {"pc": {"resources": {"memory": "1G", "radios": {"radio0": {"hwmode": "11g"}}, "lan": ["eth1"]}},
                   "old": {"variables": {"port": 2}, "compatible": ["old", "older"], "resources": {"memory": 4096}}}})
    pc, old = check_boards(description)
    assert (pc.board, pc.version, pc.compatible, pc.resources.memory) == ("pc", "1.1", ("pc",), 1 << 30)
    assert (pc.resources.radios, pc.resources.lan) == ({"radio0": {"hwmode": "11g"}}, ("eth1",))
    assert (old.board, old.version, old.compatible, old.resources.memory) == ("old", "1.2", ("old", "older"), 4096)
    assert load(description, "old", {"port": "3"}).version == "1.3"
    with pytest.raises(Mistakes, match="does not know 'new'; choose one of pc, old"):
        check(description, "new")


def test_template_mistakes_have_the_line_also_in_an_included_template(workshop: Workshop) -> None:
    workshop.file("t/outer.j2", "x\n{% include 'inner.j2' %}\n")
    workshop.file("t/inner.j2", "\n\n{{ a.b }}\n")
    workshop.file("t/lost.j2", "{% include 'none.j2' %}\n")
    workshop.file("t/division.j2", "\n{{ 1 // 0 }}\n")
    assert workshop.mistakes({
        "name": "r", "version": "1", "variables": {"a": {}},
        "templates": [{"source": f"t/{name}.j2", "target": name} for name in ("outer", "lost", "division")]}) == [
            "t/division.j2:2: the template is wrong: integer division or modulo by zero",
            "t/inner.j2:3: the template needs what is not there: 'dict object' has no attribute 'b'; set it in "
            "variables, or correct the name",
            "t/lost.j2:1: the template includes none.j2, which is not beside it"]


def test_overlays_that_lead_out_of_the_tree_are_refused(workshop: Workshop) -> None:
    workshop.file("o/etc/fine", "x")
    os.symlink("../etc/fine", workshop.place / "o/etc/good")
    os.symlink("/etc/passwd", workshop.place / "o/etc/system")
    os.symlink("../../../x", workshop.place / "o/etc/out")
    workshop.file("o/.fussy/release.json", "{}")
    os.mkfifo(workshop.place / "o/pipe")
    with socket.socket(socket.AF_UNIX) as channel:
        os.chdir(workshop.place)
        channel.bind("o/socket")
    assert workshop.mistakes({"name": "r", "version": "1", "overlay": ["o"]}) == [
        "o/.fussy/release.json: lies below .fussy, which describes the release; put it elsewhere",
        "o/etc/out: is a link that leads out of the tree, to ../../../x; write a full path if the router's own is "
        "meant",
        "o/pipe: is neither a file nor a directory nor a symbolic link; a firmware can't carry it",
        "o/socket: is neither a file nor a directory nor a symbolic link; a firmware can't carry it"]


def test_what_lasts_on_the_router_is_not_part_of_a_release(workshop: Workshop) -> None:
    workshop.file("o/etc/config/network", "config interface lan\n")
    workshop.file("o/srv/db", "")
    workshop.file("pass.j2", "")
    found = workshop.mistakes({"name": "r", "version": "1", "overlay": ["o"], "persistent": ["/etc/passwords", "/srv"],
                               "templates": [{"source": "pass.j2", "target": "etc/passwords"}]})
    assert found == [
        "o/etc/config/network: would take the place of /etc/config/network, but /etc/config is the router's own and "
        "lasts through upgrades; let a hook write it where it is missing",
        "pass.j2: would take the place of /etc/passwords, but /etc/passwords is the router's own and lasts through "
        "upgrades; let a hook write it where it is missing"]


def test_of_a_file_that_is_no_text_only_that_is_told(workshop: Workshop) -> None:
    workshop.file("image.yaml", b"\xff\xfename")
    with pytest.raises(Mistakes, match="1 mistake\n.*image.yaml: is not YAML in UTF-8"):
        check(workshop.place / "image.yaml")


def test_aliases_that_explode_are_refused(workshop: Workshop) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    found = workshop.mistakes("\n".join(lines))
    assert any("makes more than 100000 values; use fewer aliases" in mistake for mistake in found)


def test_the_command_ends_with_its_code_and_one_report(workshop: Workshop) -> None:
    description = workshop.describe("name: r\nversion: 1\n")
    done = subprocess.run([sys.executable, "-m", "pdimage", "check", description], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 50
    assert done.stderr == (f"pdimage check: cannot build: 1 mistake\n{description}:2: version: must be text; put it in "
                           'quotes (for example version: "1.0")\n')


KNOWN = ("name", "version", "base", "boards", "compatible", "platform", "chutes", "overlay", "templates", "hooks",
         "health", "metadata", "persistent", "installer", "floor", "upgrade_from", "limits", "trial", "resources",
         "settings", "system", "machine", "keys", "variables")


def test_a_lock_is_looked_at_before_anything_is_fetched(workshop: Workshop) -> None:
    workshop.file("r.lock", "click==8.1.7\nmsgspec\n")
    assert workshop.mistakes({"name": "r", "version": "1", "platform": {"requirements": "r.lock"}}) == [
        "r.lock:1: click has no --hash=sha256:…; write the lock with pip-compile --generate-hashes",
        "r.lock:2: msgspec has no --hash=sha256:…; write the lock with pip-compile --generate-hashes"]


def test_what_only_follows_from_a_missing_chute_is_not_told(workshop: Workshop) -> None:
    assert workshop.mistakes({"name": "r", "version": "1", "chutes": [{"path": "a"}, {"path": "b"}]}) == [
        f"image.yaml:{line}: chutes[{line - 4}].path: {name} is not a directory that is there; write a path relative "
        "to this file" for line, name in ((4, "a"), (5, "b"))]
