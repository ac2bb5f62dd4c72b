"""What a channel says of its files: the same words come out that went in, and a roll-out reaches whom it should."""

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fussy import channel
from fussy.channel import Offer
from fussy.errors import BadBundle

DIGEST = "ab" * 32
OFFER = Offer(kind="full", release="firmware-7", version="7.0", digest=DIGEST)


@given(st.builds(Offer, kind=st.sampled_from(["full", "delta", "part"]), digest=st.just(DIGEST),
                 base=st.sampled_from(["", DIGEST]), percent=st.integers(0, 10000).map(lambda number: number / 100)))
def test_what_is_encoded_is_decoded(offer: Offer) -> None:
    from securesystemslib.formats import encode_canonical

    custom = channel.encode(offer)
    assert encode_canonical(custom)  # fractions would be refused
    assert channel.decode(json.loads(json.dumps(custom))) == offer


def test_a_later_publisher_may_say_more() -> None:
    assert channel.decode({**channel.encode(OFFER), "colour": "green"}) == OFFER


@pytest.mark.parametrize("change", [{"kind": "other"}, {"digest": "ab"}, {"digest": f"{DIGEST}\n"}, {"base": "x"},
                                    {"percent": "101"}, {"percent": "-1"}, {"percent": "nan"}, {"percent": "many"},
                                    {"release": 7}, {"compatible": "board"}, {"first": "a"}])
def test_what_is_no_offer_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadBundle, match="cannot read an offer"):
        channel.decode({**channel.encode(OFFER), **change})


def rolled_out(percent: float, seed: str = "s") -> set[int]:
    offer = Offer(kind="full", release="r", digest=DIGEST, percent=percent, seed=seed)
    return {number for number in range(2000) if channel.takes_part(offer, f"router-{number}")}


def test_a_roll_out_reaches_as_many_as_it_says_and_never_loses_one() -> None:
    assert rolled_out(0) == set()
    assert 150 < len(rolled_out(10)) < 250
    assert rolled_out(1) < rolled_out(10) < rolled_out(50) < rolled_out(100) == set(range(2000))


def test_another_seed_reaches_others_first() -> None:
    assert rolled_out(50) != rolled_out(50, "t")


@given(st.text(), st.text())
def test_the_hash_is_below_a_hundred(seed: str, device: str) -> None:
    assert 0 <= channel.stable_hash(seed, device) < 100


def test_the_hash_stays_what_it_is() -> None:
    """Devices in the field and publishers compute it on their own: another value would start a roll-out anew."""
    assert channel.stable_hash("seed", "router-7") == pytest.approx(1.0370681305)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(channel).failed == 0
