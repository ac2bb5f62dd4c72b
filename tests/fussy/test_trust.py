"""Judging status lines: what gpg 2.2.40 really said, and what is made of it."""

import pytest

from fussy.errors import SystemSetup, Untrusted
from fussy.trust import (
    HARMLESS,
    Key,
    Signer,
    by_keyword,
    choose_key,
    judge,
    judge_seal,
    key_query,
    parse_signers,
    vouching,
)

US = "062C78BCC29FCB66D7383650C730F1F788F88259"
THEM = "13A4960BB74302A886D22CC5069C4EC6BC6D6C78"

DATA = "PLAINTEXT 62 1795255603 s\nPLAINTEXT_LENGTH 20000"
CONSIDERED = f"KEY_CONSIDERED {US} 0"
SIGNED = f"""NEWSIG signer@example.org
{CONSIDERED}
SIG_ID 35w7UPnDnNwIkKKEQfenLO8XH3Q 2026-11-21 1795255603
GOODSIG C730F1F788F88259 Signer <signer@example.org>
VALIDSIG {US} 2026-11-21 1795255603 0 4 0 22 8 00 {US}"""
GOOD = f"{DATA}\n{SIGNED}"
OPENED = """ENC_TO 2F9067EBF6D443DD 18 0
DECRYPTION_KEY 771F4EEFBF886B0123B5A2B02F9067EBF6D443DD 4F0BDB822B8812B9310F91925B17420EDD33AEE3 u
BEGIN_DECRYPTION
DECRYPTION_INFO 2 9 0"""
CLOSED = "DECRYPTION_OKAY\nGOODMDC\nEND_DECRYPTION"
BROKEN = "BADMDC\nDECRYPTION_FAILED\nEND_DECRYPTION"
GOOD_ENCRYPTED = f"{OPENED}\n{GOOD}\n{CLOSED}"


def lines(text: str) -> list[str]:
    return [f"[GNUPG:] {line}" for line in text.splitlines()]


@pytest.mark.parametrize("text", [
    pytest.param(GOOD, id="signed"),
    pytest.param(GOOD_ENCRYPTED, id="signed and encrypted"),
    pytest.param("NO_SECKEY 8F1F4214A907FA90\n" + GOOD_ENCRYPTED, id="for another device too"),
    pytest.param(GOOD.replace("GOODSIG", "KEYEXPIRED 1793787297\nGOODSIG"), id="beside an expired subkey"),
    pytest.param(GOOD.replace(" 8 00", " 9 00"), id="SHA384"),
    pytest.param(GOOD.replace(" 8 00", " 10 00"), id="SHA512"),
    pytest.param(GOOD.replace(f"VALIDSIG {US}", "VALIDSIG 7227F995EB5DFEC86FCB5D961074F27B0B7FBD61"), id="by a subkey"),
])
def test_good_signatures_pass(text: str) -> None:
    assert judge(lines(text), 0, {US}) == Signer(US, "Signer <signer@example.org>", 1795255603)


ERRSIG = "NEWSIG\nERRSIG C730F1F788F88259 22 {} 00 1795255603 {} -"
TWICE = (f"{DATA}\nERROR proc_pkt.plaintext 89_BAD_DATA\nNEWSIG signer@example.org\n{CONSIDERED}\n"
         "BADSIG C730F1F788F88259 Signer <signer@example.org>\nFAILURE gpg-exit 33554433")


@pytest.mark.parametrize(("text", "returncode", "reason"), [
    pytest.param("", 2, "not an OpenPGP message", id="nothing"),
    pytest.param("NODATA 1\nNODATA 2\nFAILURE decrypt 4294967295", 2, "not an OpenPGP message", id="garbage"),
    pytest.param("UNEXPECTED 0\nFAILURE decrypt 38", 2, "not an OpenPGP message", id="a key"),
    pytest.param(DATA, 0, "not signed", id="unsigned"),
    pytest.param(f"{OPENED}\n{DATA}\n{CLOSED}", 0, "not signed", id="encrypted but unsigned"),
    pytest.param(f"{DATA}\n{ERRSIG.format(8, 9)}\nNO_PUBKEY C730F1F788F88259", 2, "foreign key, C730F1F788F88259",
                 id="foreign"),
    pytest.param(f"{DATA}\n{ERRSIG.format(2, 5)}", 2, "uses SHA-1, which is too weak", id="SHA-1"),
    pytest.param(f"{DATA}\n{ERRSIG.format(3, 5)}", 2, "uses RIPEMD-160, which is too weak", id="RIPEMD-160"),
    pytest.param(f"{DATA}\n{ERRSIG.format(8, 6)}", 2, "cannot be checked", id="key of the future"),
    pytest.param(GOOD.replace(" 8 00", " 11 00"), 0, "uses SHA-224, which is too weak", id="SHA-224"),
    pytest.param(GOOD.replace(US, THEM), 0, "may not sign", id="known, not allowed"),
    pytest.param(GOOD.replace("GOODSIG", "EXPKEYSIG"), 0, "signing key C730F1F788F88259 has expired", id="expired key"),
    pytest.param(GOOD.replace("GOODSIG", "EXPSIG") + "\nFAILURE gpg-exit 33554433", 1,
                 "its signature by key C730F1F788F88259 has expired", id="expired signature"),
    pytest.param(GOOD.replace("GOODSIG", "REVKEYSIG"), 0, "has been revoked", id="revoked"),
    pytest.param(f"{DATA}\nNEWSIG\nBADSIG C730F1F788F88259 Signer", 1, "not what key C730F1F788F88259 signed",
                 id="changed"),
    pytest.param(f"{GOOD}\n{SIGNED}", 0, "more than one signature", id="signed twice by us"),
    pytest.param(f"{GOOD}\n{SIGNED.replace(US, THEM)}", 0, "more than one signature", id="signed by two"),
    pytest.param(f"{DATA}\n{ERRSIG.format(8, 9)}\n{SIGNED}", 2, "foreign key", id="foreign and good"),
    pytest.param(TWICE, 1, "more than one message", id="two messages"),
    pytest.param(f"{DATA}\n{GOOD}", 0, "more than one message", id="two texts that gpg lets pass"),
    pytest.param(GOOD.replace("NEWSIG", "NODATA 3\nNEWSIG", 1), 2, "cut short, or something else follows", id="tail"),
    pytest.param(f"{DATA}\nNODATA 3", 0, "cut short", id="signature cut off, exit status 0"),
    pytest.param(f"{OPENED}\n{DATA}\n{BROKEN}", 2, "damaged or changed", id="cut while encrypted"),
    pytest.param(f"{OPENED}\n{GOOD}\n{BROKEN}", 2, "damaged or changed", id="good signature in damaged encryption"),
    pytest.param(f"{OPENED}\n{GOOD}\nDECRYPTION_OKAY\nEND_DECRYPTION", 0, "does not protect it", id="no MDC"),
    pytest.param("ENC_TO 8F1F4214A907FA90 18 0\nBEGIN_DECRYPTION\nDECRYPTION_FAILED", 2,
                 "encrypted for another device .key 8F1F4214A907FA90.", id="for another device"),
    pytest.param(f"{OPENED}\nDECRYPTION_FAILED", 2, "damaged and cannot be decrypted", id="broken encryption"),
    pytest.param("NEED_PASSPHRASE_SYM 9 3 2\nERROR get_passphrase 85\nBEGIN_DECRYPTION\nDECRYPTION_FAILED", 2,
                 "encrypted with a pass-phrase", id="symmetric"),
    pytest.param(GOOD.replace(" 8 00", " 8 01"), 0, "signed as text", id="text signature"),
    pytest.param(GOOD.replace("PLAINTEXT 62", "PLAINTEXT 74"), 0, "signed as text", id="text data"),
    pytest.param("PLAINTEXT 74 0\n" + SIGNED.replace(" 8 00", " 8 01"), 0, "signed as text", id="clear-signed"),
    pytest.param(GOOD, 2, "exit status 2, no reason given", id="only the exit status"),
    pytest.param(GOOD + "\nSOMETHING_NEW 1", 0, "SOMETHING_NEW", id="a word nobody knows"),
    pytest.param(GOOD.replace(f" 00 {US}", " 00"), 0, "which key", id="no primary key"),
    pytest.param(GOOD.replace("NEWSIG signer@example.org\n", ""), 0, "did not accept", id="no NEWSIG"),
])
def test_everything_else_is_refused_with_its_reason(text: str, returncode: int, reason: str) -> None:
    with pytest.raises(Untrusted, match=f"^cannot trust a.gpg: .*{reason}.*[;,]"):
        judge(lines(text), returncode, {US}, "a.gpg")


@pytest.mark.parametrize("text", [GOOD, GOOD_ENCRYPTED])
def test_no_line_of_a_good_judgement_can_be_missing(text: str) -> None:
    needed = {"PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG"}
    if text is GOOD_ENCRYPTED:
        needed |= {"DECRYPTION_OKAY", "GOODMDC"}
    for keyword in needed:
        rest = [line for line in lines(text) if line.split()[1] != keyword]
        with pytest.raises(Untrusted):
            judge(rest, 0, {US})


@pytest.mark.parametrize("keyword", [
    "BADARMOR", "BADMDC", "BADSIG", "DECRYPTION_FAILED", "ERROR", "ERRSIG", "EXPKEYSIG", "EXPSIG", "FAILURE",
    "INV_SGNR", "MISSING_PASSPHRASE", "NODATA", "NO_PUBKEY", "REVKEYSIG", "TRUNCATED", "UNEXPECTED", "WARNING",
])
def test_no_bad_word_passes_beside_a_good_signature(keyword: str) -> None:
    assert keyword not in HARMLESS
    for extra in (keyword, f"{keyword} C730F1F788F88259 x"):
        for text in (f"{extra}\n{GOOD}", f"{GOOD}\n{extra}"):
            with pytest.raises(Untrusted):
                judge(lines(text), 0, {US})


def test_status_is_read_only_from_whole_status_lines() -> None:
    assert by_keyword(["gpg: [GNUPG:] GOODSIG x", "[GNUPG:]", "", "[GNUPG:] A b c", "[GNUPG:] A"]) == {
        "A": [("b", "c"), ()]}


def key(fingerprint: str = US, *, user_id: str = "Signer <signer@example.org>", validity: str = "u",
        capabilities: str = "scSC", ownertrust: str = "u", grip: str = "G1", subkeys: tuple[str, ...] = ()) -> Key:
    return Key(fingerprint, (user_id,), validity, capabilities, ownertrust, 0, 0, subkeys, (grip,))


def test_signers_are_full_fingerprints() -> None:
    assert parse_signers(f"# us\n\n{US.lower()}  # and why\n0x{THEM}\n") == {US, THEM}
    assert parse_signers(f"{US}\r\n# not \u2028{THEM}") == {US}
    for text, reason in (("C730F1F788F88259\n", "line 1: not a fingerprint"), ("# nobody\n", "allows nobody"),
                         (f"{US}\nsigner@example.org", "line 2: not a fingerprint")):
        with pytest.raises(SystemSetup, match=reason):
            parse_signers(text)


def test_the_devices_own_key_never_vouches() -> None:
    ours, device, known = key(grip="G1"), key(THEM, grip="G2"), key("F" * 40, grip="G3", ownertrust="f")
    assert vouching([ours, device, known], {"G2"}) == {US}


ENCRYPTS = "escESC"


@pytest.mark.parametrize("wanted", [US, US.lower(), f"0x{US}", "062C 78BC C29F CB66 D738  3650 C730 F1F7 88F8 8259",
                                    "C730F1F788F88259", "88f88259", "signer@example.org", "Signer@Example.Org",
                                    "Signer <signer@example.org>", "BBBBBBBB"])
def test_keys_go_by_id_fingerprint_and_address(wanted: str) -> None:
    ring = [key(THEM, user_id="X <xsigner@example.org>", capabilities=ENCRYPTS),
            key(capabilities=ENCRYPTS, subkeys=("B" * 40,))]
    assert choose_key(ring, wanted, "E").fingerprint == US


@pytest.mark.parametrize(("ring", "wanted", "reason"), [
    ([], US, "no such key in the ring"),
    ([key()], "nobody@example.org", "no such key in the ring"),
    ([key()], "Signer", "key id, fingerprint or e-mail address"),
    ([key()], "--yes", "key id, fingerprint or e-mail address"),
    ([key()], "A" * 32, "key id, fingerprint or e-mail address"),
    ([key(), key(THEM)], "signer@example.org", f"several keys.*{US}, {THEM}"),
    ([key(), key("1" * 32 + US[-8:])], US[-8:], "several keys"),
    ([key(validity="e")], US, "has expired"),
    ([key(validity="r")], US, "has been revoked"),
    ([key(validity="d")], US, "is disabled"),
    ([key(capabilities="cC")], US, "is not made to sign with"),
])
def test_keys_that_cannot_be_used_are_named(ring: list[Key], wanted: str, reason: str) -> None:
    with pytest.raises(SystemSetup, match=f"^cannot sign with .*{reason}"):
        choose_key(ring, wanted, "S")


def test_an_expired_key_does_not_hide_its_successor() -> None:
    assert choose_key([key(validity="e"), key(THEM)], "signer@example.org", "S").fingerprint == THEM


def test_a_query_is_never_an_option_of_gpg() -> None:
    for wanted in ("-x@example.org", "--output=/etc/passwd@x", "x <--yes@example.org>"):
        assert not key_query(wanted, "E").startswith("-")


CREATED = f"BEGIN_SIGNING H8\nSIG_CREATED S 22 8 00 1795256063 {US}"


@pytest.mark.parametrize(("text", "returncode", "encrypted", "complaint"), [
    (CREATED, 0, False, None),
    (f"{CREATED}\nEND_ENCRYPTION", 0, True, None),
    (CREATED, 0, True, "not signed as it should be"),
    (f"{CREATED}\nEND_ENCRYPTION", 0, False, "not signed as it should be"),
    (CREATED.replace(US, THEM), 0, False, "not signed as it should be"),
    (f"{CREATED}\n{CREATED}", 0, False, "not signed as it should be"),
    (CREATED.replace(" 8 00", " 2 00"), 0, False, "not signed as it should be"),
    (CREATED.replace(" 8 00", " 8 01"), 0, False, "not signed as it should be"),
    ("", 0, False, "not signed as it should be"),
    ("BEGIN_SIGNING H8\nFAILURE sign 67108875", 2, False, "the pass-phrase is wrong; try again"),
    ("BEGIN_SIGNING H8\nNEED_PASSPHRASE A A 22 0\nINQUIRE_MAXLEN 100", 2, False, "its pass-phrase is needed"),
    (CREATED, 2, False, "gpg failed"),
    ("ERROR sign 89_BAD_DATA", 2, False, "gpg failed"),
])
def test_a_seal_counts_only_when_the_right_key_made_it(text: str, returncode: int, encrypted: bool,
                                                       complaint: str | None) -> None:
    said = judge_seal(lines(text), returncode, key(), encrypted)
    assert (said is None) if complaint is None else (said is not None and complaint in said)
