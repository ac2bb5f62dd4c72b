from paradrop.lib.chute import Chute


def test_only_what_a_descriptor_may_have_becomes_an_attribute() -> None:
    chute = Chute({"name": "a", "net": {}, "pkg": 1, "_cache": 2, "setCache": 3, "isValid": 4, "__class__": 5}, ["pkg"])
    assert chute.name == "a"
    assert hasattr(chute, "net")
    assert not hasattr(chute, "pkg")
    chute.setCache("k", 1)
    assert chute.isValid() and chute.getCache("k") == 1


def test_the_caller_keeps_its_dictionary() -> None:
    given = {"name": "a", "func": len}
    Chute(given, strip=["func"])
    assert given == {"name": "a", "func": len}


def test_texts_and_validity() -> None:
    chute = Chute({"name": "a", "state": "running"})
    assert repr(chute) == "<Chute a - running>"
    assert str(chute) == "Chute:a"
    assert not Chute({}).isValid()


def test_cache() -> None:
    chute = Chute({"name": "a"})
    assert chute.getCache("x") is None
    chute.appendCache("x", 1)
    chute.appendCache("x", 2)
    chute.setCache("y", "text")
    chute.appendCache("y", 3)
    assert (chute.getCache("x"), chute.getCache("y")) == ([1, 2], "text")
    assert chute.dumpCache() == "x:[1, 2]\ny:text"
    chute.delCache("x")
    chute.delCache("x")
    assert chute.getCache("x") is None


def test_a_dump_brings_everything_back() -> None:
    chute = Chute({"name": "a", "state": "stopped", "warning": "w", "net": {"x": 1}})
    chute.setCache("k", [1])
    again = Chute.fromDump(chute.fullDump())
    assert vars(again) == vars(chute)


def test_inherit_takes_only_what_is_missing() -> None:
    new = Chute({"name": "a", "environment": {"A": "1"}})
    new.inherit(Chute({"name": "a", "environment": {}, "dockerfile": "FROM x", "state": "running"}))
    assert new.descriptor == {"name": "a", "environment": {"A": "1"}, "dockerfile": "FROM x"}
    assert new.state == "invalid"
