"""Whether GnuPG's own words make a bundle trustworthy, and whose word counts: no effects, only judgement.

GnuPG's exit status and the summaries that libraries make of it say yes to expired, revoked and SHA-1 signatures and to
any key of the ring. So the raw status lines are judged (GnuPG's doc/DETAILS, "Format of the --status-fd output"), and
only one shape of message is let through::

    [ENC_TO … DECRYPTION_OKAY, GOODMDC]     when it is encrypted: for us, and undamaged
    PLAINTEXT 62                            exactly one, binary
    NEWSIG, GOODSIG, VALIDSIG               exactly one of each
        VALIDSIG … hash 8, 9 or 10          SHA-256, SHA-384 or SHA-512
        VALIDSIG … class 00                 over the bytes as they are; text signatures ignore line ends
        VALIDSIG … primary fingerprint      one of the allowed signers
    nothing that tells of a failure, and exit status 0

Whatever is not known to be harmless counts against the bundle.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fussy.errors import SystemSetup, Untrusted

PURPOSES = {"E": "encrypt for", "S": "sign with"}
STRONG_DIGESTS = {"8": "SHA256", "9": "SHA384", "10": "SHA512"}
WEAK_DIGESTS = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160", "11": "SHA-224"}

GPG_ERR_BAD_PASSPHRASE = 11

HARMLESS = frozenset({
    "BEGIN_DECRYPTION", "CARDCTRL", "DECRYPTION_COMPLIANCE_MODE", "DECRYPTION_INFO", "DECRYPTION_KEY",
    "DECRYPTION_OKAY", "ENC_TO", "END_DECRYPTION", "GOODMDC", "GOODSIG", "KEYEXPIRED", "KEYREVOKED", "KEY_CONSIDERED",
    "NEWSIG", "NOTATION_DATA", "NOTATION_FLAGS", "NOTATION_NAME", "NO_SECKEY", "PLAINTEXT", "PLAINTEXT_LENGTH",
    "POLICY_URL", "PROGRESS", "SIG_ID", "SIG_SUBPACKET", "USERID_HINT", "VALIDSIG", "VERIFICATION_COMPLIANCE_MODE",
})
"""What may occur beside a good signature. A message for several devices is not for all of them (NO_SECKEY), and a key
may have expired or revoked subkeys (KEYEXPIRED, KEYREVOKED) beside the one that signed."""


@dataclass(frozen=True)
class Signer:
    """Who vouches for a bundle: primary fingerprint (40 hex digits, upper case), user id, time in Unix seconds."""

    fingerprint: str
    user_id: str
    signed_at: int


@dataclass(frozen=True)
class Key:
    """A key of a ring, as far as trust depends on it; times are Unix seconds, 0 when there is none."""

    fingerprint: str
    user_ids: tuple[str, ...]
    validity: str
    capabilities: str
    ownertrust: str
    created: int
    expires: int
    subkeys: tuple[str, ...] = ()
    keygrips: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key for people: its long id and first user id."""
        return f"{self.fingerprint[-16:]} ({self.user_ids[0]})" if self.user_ids else self.fingerprint[-16:]

    @property
    def fault(self) -> str | None:
        """Why nobody should use this key any more, or None."""
        return {"e": "has expired", "r": "has been revoked", "d": "is disabled", "i": "is invalid"}.get(self.validity)


Statuses = Mapping[str, Sequence[tuple[str, ...]]]
"""GnuPG's status lines: for each keyword the arguments of its lines, in their order."""


def by_keyword(lines: Iterable[str]) -> Statuses:
    """Read status lines; text that isn't one is left out.

    >>> by_keyword(["[GNUPG:] NODATA 1", "gpg: hello"])
    {'NODATA': [('1',)]}
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        words = line.split(" ")
        if len(words) > 1 and words[0] == "[GNUPG:]":
            found.setdefault(words[1], []).append(tuple(words[2:]))
    return found


def judge(lines: Iterable[str], returncode: int, allowed: Collection[str], bundle: str = "the bundle") -> Signer:
    """Say who signed a message that gpg has read to its end.

    :param lines: the raw status lines, all of them
    :param returncode: gpg's exit status
    :param allowed: primary fingerprints of the keys that may sign
    :raises Untrusted: nobody allowed vouches for the whole message; the text says what is wrong and what to do
    """
    status = by_keyword(lines)
    complaint = (damage(status) or bad_signature(status) or wrong_shape(status, returncode)
                 or not_allowed(status, allowed))
    if complaint:
        raise Untrusted(f"cannot trust {bundle}: {complaint}")
    signature = status["VALIDSIG"][0]
    return Signer(signature[9], signer_name(status), int(signature[2]))


def judge_seal(lines: Iterable[str], returncode: int, signer: Key, encrypted: bool) -> str | None:
    """Tell why what gpg wrote is not a message signed by SIGNER (and encrypted, if it was to be), or None."""
    status = by_keyword(lines)
    if returncode == 0:
        made = status.get("SIG_CREATED", [])
        good = (len(made) == 1 and made[0][0] == "S" and made[0][2] in STRONG_DIGESTS and made[0][3] == "00"
                and made[0][5] in (signer.fingerprint, *signer.subkeys))
        return None if good and ("END_ENCRYPTION" in status) == encrypted else "it is not signed as it should be"
    codes = [int(code) & 0xFFFF for place, code in failures(status) if place == "sign" and code.isdecimal()]
    if GPG_ERR_BAD_PASSPHRASE in codes:
        return "the pass-phrase is wrong; try again"
    if "NEED_PASSPHRASE" in status:
        return "its pass-phrase is needed; run this on a terminal, or give a file with --passphrase-file"
    return "gpg failed"


def damage(status: Statuses) -> str | None:
    """Tell what keeps the message from being read at all."""
    if "BADMDC" in status:
        return "it was damaged or changed after it was encrypted; fetch it again"
    if "NEED_PASSPHRASE_SYM" in status:
        return "it is encrypted with a pass-phrase; pack it with --encrypt-for this device's key"
    if "DECRYPTION_FAILED" in status and "DECRYPTION_KEY" not in status:
        ids = ", ".join(words[0] for words in status.get("ENC_TO", ()) if words) or "unknown"
        return (f"it is encrypted for another device (key {ids}), or damaged; "
                "pack it with --encrypt-for this device's key")
    if "DECRYPTION_FAILED" in status:
        return "it is damaged and cannot be decrypted; fetch it again"
    if "PLAINTEXT" not in status:
        return "it is not an OpenPGP message that holds data, or its beginning is damaged; fetch it again"
    if "NODATA" in status or "UNEXPECTED" in status:
        return "it is cut short, or something else follows it; fetch it again"
    if len(status["PLAINTEXT"]) > 1 or "proc_pkt.plaintext" in dict(failures(status)):
        return "it holds more than one message; pack it again"
    return None


def failures(status: Statuses) -> list[tuple[str, str]]:
    """Where gpg reports failures, each with gpg's error code."""
    return [(words[0], words[1]) for keyword in ("ERROR", "FAILURE") for words in status.get(keyword, ())
            if len(words) > 1]


def bad_signature(status: Statuses) -> str | None:
    """Tell what is wrong with the signature that is there."""
    for arguments in status.get("ERRSIG", ()):
        if len(arguments) > 5 and arguments[5] == "9":
            return (f"it was signed by a foreign key, {arguments[0]}, that is not in the keyring; "
                    "import that key and allow it only if you know whose it is")
        if len(arguments) > 2 and arguments[2] not in STRONG_DIGESTS:
            name = WEAK_DIGESTS.get(arguments[2], f"digest algorithm {arguments[2]}")
            return f"its signature uses {name}, which is too weak; sign it again with SHA256"
        return f"its signature by key {arguments[0] if arguments else '?'} cannot be checked; sign it again"
    for word, complaint in {
        "BADSIG": "its content is not what key {0} signed; fetch it again",
        "REVKEYSIG": "its signing key {0} has been revoked; sign it again with a valid key",
        "EXPKEYSIG": "its signing key {0} has expired; sign it again with a valid key, or put the prolonged key "
                     "into the keyring (and look at this machine's clock)",
        "EXPSIG": "its signature by key {0} has expired; sign it again (and look at this machine's clock)",
    }.items():
        if word in status:
            return complaint.format(status[word][0][0] if status[word][0] else "?")
    return None


def wrong_shape(status: Statuses, returncode: int) -> str | None:
    """Tell where the message is not plainly: one signature over one binary text."""
    count = {word: len(status.get(word, ())) for word in ("NEWSIG", "GOODSIG", "VALIDSIG")}
    if count["NEWSIG"] > 1 or count["GOODSIG"] > 1 or count["VALIDSIG"] > 1:
        return "it has more than one signature; sign it once"
    if not any(count.values()):
        return "it is not signed; sign it with a key that this device allows"
    if "BEGIN_DECRYPTION" in status and not ("DECRYPTION_OKAY" in status and "GOODMDC" in status):
        return "its encryption does not protect it from changes; pack it again with a current GnuPG"
    strange = sorted(word for word in status if word not in HARMLESS)
    if strange or returncode != 0 or set(count.values()) != {1}:
        reason = " ".join(strange) or "no reason given"
        return f"gpg did not accept it (exit status {returncode}, {reason}); pack it again"
    signature = status["VALIDSIG"][0]
    if len(signature) < 10 or not re.fullmatch("[0-9A-F]{40}", signature[9]):
        return "gpg does not say which key signed it; use GnuPG 2.2 or newer"
    if signature[7] not in STRONG_DIGESTS:
        name = WEAK_DIGESTS.get(signature[7], f"digest algorithm {signature[7]}")
        return f"its signature uses {name}, which is too weak; sign it again with SHA256"
    if signature[8] != "00" or status["PLAINTEXT"][0][:1] != ("62",):
        return "it was signed as text, which leaves line ends open; sign it as binary data"
    return None


def not_allowed(status: Statuses, allowed: Collection[str]) -> str | None:
    """Tell that the signer is known, but is not one whose word counts."""
    fingerprint = status["VALIDSIG"][0][9]
    if fingerprint in allowed:
        return None
    return (f"it was signed by {fingerprint} ({signer_name(status)}), which is in the keyring but may not sign; "
            "add it to the keyring's file `signers` if it should")


def signer_name(status: Statuses) -> str:
    """The user id of the key that made the good signature."""
    return printable(" ".join(status["GOODSIG"][0][1:]))


def parse_signers(text: str, path: str = "signers") -> frozenset[str]:
    """Read a list of allowed signers: one primary fingerprint a line, blanks inside allowed, ``#`` starts a comment.

    >>> sorted(parse_signers("# us\\n062C 78BC C29F CB66 D738  3650 C730 F1F7 88F8 8259\\n"))
    ['062C78BCC29FCB66D7383650C730F1F788F88259']

    :raises SystemSetup: a line is not a full fingerprint, or there is none
    """
    signers = set()
    for number, line in enumerate(text.split("\n"), 1):
        fingerprint = "".join(line.partition("#")[0].split()).upper().removeprefix("0X")
        if not fingerprint:
            continue
        if not re.fullmatch("[0-9A-F]{40}", fingerprint):
            raise SystemSetup(f"cannot read {path}, line {number}: not a fingerprint of 40 hex digits; "
                              "write the primary fingerprints that `gpg --fingerprint` shows")
        signers.add(fingerprint)
    if not signers:
        raise SystemSetup(f"cannot use {path}: it allows nobody to sign; write one fingerprint a line")
    return frozenset(signers)


def vouching(keys: Iterable[Key], secret_keygrips: Collection[str]) -> frozenset[str]:
    """Choose who may sign where no list of signers says it: keys trusted ultimately that the device can't sign with.

    GnuPG marks every key it makes as trusted ultimately, so the device's own key is told by its secret half.
    """
    return frozenset(key.fingerprint for key in keys
                     if key.ownertrust == "u" and set(key.keygrips).isdisjoint(secret_keygrips))


def key_query(wanted: str, purpose: str) -> str:
    """Turn the operator's name for a key (key id, fingerprint or e-mail address) into what gpg is asked for.

    >>> key_query("0xc064b21c", "E"), key_query("-x@example.org", "E")
    ('C064B21C', '*-x@example.org')

    :raises SystemSetup: it is none of them
    """
    number = re.sub(r"^0x|\s", "", wanted.strip(), flags=re.IGNORECASE).upper()
    if re.fullmatch("[0-9A-F]{8}|[0-9A-F]{16}|[0-9A-F]{40}", number):
        return number
    if "@" in wanted:
        return f"*{address(wanted)}"
    raise SystemSetup(f"cannot {PURPOSES[purpose]} {wanted!r}: name a key by its key id, fingerprint or e-mail address")


def choose_key(keys: Sequence[Key], wanted: str, purpose: str) -> Key:
    """Find the one key that WANTED names and that can be used.

    :param purpose: gpg's letter: ``E`` to encrypt for it, ``S`` to sign with it
    :raises SystemSetup: there is no such key, more than one, or it can't be used
    """
    refusal = f"cannot {PURPOSES[purpose]} {wanted!r}"
    query = key_query(wanted, purpose)
    if query.startswith("*"):
        found = [key for key in keys if query[1:] in map(address, key.user_ids)]
    else:
        found = [key for key in keys if any(one.endswith(query) for one in (key.fingerprint, *key.subkeys))]
    usable = usable_keys(found, purpose)
    if len(usable) == 1:
        return usable[0]
    if not found:
        raise SystemSetup(f"{refusal}: there is no such key in the ring; import it (`gpg --list-keys` shows others)")
    if len(found) > 1:
        names = ", ".join(key.fingerprint for key in usable or found)
        raise SystemSetup(f"{refusal}: several keys go by that name; give one fingerprint of {names}")
    reason = found[0].fault or f"is not made to {PURPOSES[purpose]}"
    raise SystemSetup(f"{refusal}: key {found[0].name} {reason}; name another key")


def usable_keys(keys: Iterable[Key], purpose: str) -> list[Key]:
    """Leave out keys that have expired, are revoked or can't do what they are to do."""
    return [key for key in keys if not key.fault and purpose in key.capabilities]


def address(name: str) -> str:
    """The e-mail address of a user id, in lower case.

    >>> address("Device 7 <Device7@Example.org>"), address("device7@example.org")
    ('device7@example.org', 'device7@example.org')
    """
    inside = re.search(r"<([^<>]*)>\s*$", name)
    return (inside.group(1) if inside else name).strip().lower()


def printable(text: str) -> str:
    """Make one harmless line of a text that a stranger chose, the name of a key for example.

    >>> printable("a\\n\\x1b[2J")
    'a??[2J'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)
