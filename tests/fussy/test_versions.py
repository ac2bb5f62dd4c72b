"""The order of versions is dpkg's, which is asked."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fussy import versions

# What deb-version(7) allows in an upstream version; few of each, so that two versions often begin alike.
characters = st.sampled_from("0011299abzABZ.+-~~:")
upstream = st.tuples(st.sampled_from("0129"), st.text(characters, max_size=8)).map("".join)


def alike(version: str) -> st.SearchStrategy[str]:
    """Versions that differ from VERSION in one place."""
    places = st.integers(1, len(version))
    return st.builds(lambda i, new, cut: version[:i] + new + version[i + cut:], places, st.text(characters, max_size=2),
                     st.integers(0, 2))


pairs = st.one_of(st.tuples(upstream, upstream), upstream.flatmap(lambda one: st.tuples(st.just(one), alike(one))))


def dpkg(one: str, relation: str, other: str) -> bool:
    # with an epoch and a revision of its own, all the rest is the upstream version
    argv = ["dpkg", "--compare-versions", f"0:{one}-0", relation, f"0:{other}-0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and not done.stderr, (argv, done.stderr)
    return done.returncode == 0


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is missing: this is no Debian")
@settings(max_examples=250, deadline=None)
@given(pairs)
def test_dpkg_agrees(pair: tuple[str, str]) -> None:
    one, other = (versions.key(version) for version in pair)
    relation = "lt" if one < other else "gt" if one > other else "eq"
    assert dpkg(pair[0], relation, pair[1])


@pytest.mark.parametrize(("smaller", "greater"), [
    ("1.9", "1.10"), ("1.0~rc1", "1.0"), ("1.0~~", "1.0~"), ("1.0", "1.0.0"), ("1.0a", "1.0.1"), ("1.0a", "1.0b"),
    ("1.0Z", "1.0a"), ("1.0-1", "1.0-2"), ("", "0"), ("2", "10"), ("9" * 5000, "1" + "0" * 5000), ("²", "³"),
])
def test_smaller_and_greater(smaller: str, greater: str) -> None:
    assert versions.key(smaller) < versions.key(greater)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.00"), ("1.", "1.0"), ("007", "7"), ("1.0a", "1.0a0")])
def test_equal(one: str, other: str) -> None:
    assert versions.key(one) == versions.key(other)


@settings(deadline=None)
@given(st.lists(st.text(max_size=6), min_size=3, max_size=3))
def test_any_text_has_its_place(texts: list[str]) -> None:
    one, two, three = sorted(texts, key=versions.key)
    assert versions.key(one) <= versions.key(two) <= versions.key(three) >= versions.key(one)
