"""Rules of the packet filter as steps: the words of the commands, in pairs that add and delete.

What zones, forwardings and redirects say is kept in chains of our own, entered from the kernel's, so that the rules
of others (Docker's above all) stay as they are and ours can be taken away whole:

    INPUT   -> pdconfd_input      replies, redirected connections | policies of the zones that packets come from
    FORWARD -> pdconfd_forward    replies | forwardings, redirects | others' redirects | policies, as above
    OUTPUT  -> pdconfd_output     replies | policies of the zones that packets go to

What accepts is inserted near the top of its chain and policies are appended at the end, so it does not matter in which
order sections are applied.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import Run, SetSysctl, Step

IPV4 = "iptables"
IPV6 = "ip6tables"

INPUT = "pdconfd_input"
FORWARD = "pdconfd_forward"
OUTPUT = "pdconfd_output"

REPLIES = ("--match", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "--jump", "ACCEPT")

# Replies are most of the packets, so the rule for them stays the first one
_TOP = {FORWARD: ("2",)}

# What IPv6 cannot do without: router and neighbour discovery (RFC 4890, section 4.4.1)
_DISCOVERY = ("router-solicitation", "router-advertisement", "neighbour-solicitation", "neighbour-advertisement")

# The kernel keeps 256 bytes of a comment, the last of which is zero
_COMMENT_BYTES = 255

# Packets start to be forwarded after the rules are there and stop before the rules go
_PRIO_FORWARDING_ON = Command.PRIO_ADD_IPTABLES + 1
_PRIO_FORWARDING_OFF = Command.PRIO_ADD_IPTABLES - 1


def rule(program: str, table: str, chain: str, words: Sequence[str], comment: str, *, append: bool = False,
         shared: bool = False) -> Step:
    """Return the step for one rule.

    Args:
        program: IPV4 or IPV6.
        table: nat or filter.
        chain: the chain it goes into.
        words: matches and target.
        comment: shown by iptables, so that an operator sees whose rule it is.
        append: at the end of the chain instead of at its top.
        shared: see Step.
    """
    said = comment.encode("utf-8", "surrogateescape")[:_COMMENT_BYTES].decode("utf-8", "ignore")
    body = (*words, "--match", "comment", "--comment", said)
    start = _start(program, table)
    add = ("--append", chain) if append else ("--insert", chain, *_TOP.get(chain, ()))
    return Step(Command.PRIO_ADD_IPTABLES, Run((*start, *add, *body)), Run((*start, "--delete", chain, *body)),
                shared=shared)


def chains(program: str) -> Iterator[Step]:
    """Yield the steps that make our chains in the filter table and enter them."""
    start = _start(program, "filter")
    for parent, chain in (("INPUT", INPUT), ("FORWARD", FORWARD), ("OUTPUT", OUTPUT)):
        yield Step(Command.PRIO_ADD_IPTABLES, Run((*start, "--new-chain", chain)),
                   Run((*start, "--delete-chain", chain)), shared=True)
        yield rule(program, "filter", parent, ("--jump", chain), "pdconfd", shared=True)
    yield rule(program, "filter", FORWARD, REPLIES, "pdconfd", append=True, shared=True)
    # A connection that another program's rule sends on, a container's published port, is for its rules to judge
    yield rule(program, "filter", FORWARD, ("--match", "conntrack", "--ctstate", "DNAT", "--jump", "RETURN"),
               "pdconfd", append=True, shared=True)
    for chain in (INPUT, OUTPUT) if program == IPV6 else ():
        for kind in _DISCOVERY:
            yield rule(program, "filter", chain, ("--proto", "ipv6-icmp", "--icmpv6-type", kind, "--jump", "ACCEPT"),
                       "pdconfd", shared=True)


def forwarding_on() -> Step:
    """Return the step that makes the kernel forward IPv4 packets, as long as a section needs it."""
    return Step(_PRIO_FORWARDING_ON, SetSysctl("net.ipv4.conf.all.forwarding", "1"),
                undo_priority=_PRIO_FORWARDING_OFF, shared=True)


def match(option: str, value: str | None) -> tuple[str, ...]:
    """Return the words that match a value, or do not match one that begins with ``!``; none for no value.

    >>> match("--source", "!10.0.0.0/8")
    ('!', '--source', '10.0.0.0/8')
    """
    if value is None:
        return ()
    text = value.strip()
    if text.startswith("!"):
        return ("!", option, text[1:].strip())
    return (option, text)


def ports(option: str, value: str | None) -> tuple[str, ...]:
    """Return the words that match a port or a range of ports, ``8000-8080`` or ``8000:8080``."""
    return match(option, value.replace("-", ":") if value else None)


def is_rule(command: Command) -> bool:
    """Return whether a command is about the packet filter."""
    return command.effect.argv[0] in (IPV4, IPV6)


def together(commands: Sequence[Command]) -> list[tuple[Run, list[Command]]]:
    """Return few effects that do what many commands about the packet filter do, each with the commands it stands for.

    Each effect is one table's, so the kernel takes it as a whole or not at all. One program that reads a thousand rules
    takes as long as three that bring one each.
    """
    tables: dict[tuple[str, str], list[Command]] = defaultdict(list)
    for command in commands:
        program, _, _, _, table, *_ = command.effect.argv
        tables[program, table].append(command)
    return [(Run((f"{program}-restore", "--noflush", "--wait", "5"), _text(table, found)), found)
            for (program, table), found in tables.items()]


def _text(table: str, commands: Sequence[Command]) -> str:
    lines = (" ".join(map(_quote, command.effect.argv[_WORDS_BEFORE:])) for command in commands)
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def _quote(word: str) -> str:
    """Return a word as iptables-restore reads it; line ends cannot be in one, see base._text."""
    if word and all(letter.isalnum() or letter in "-_.,:/!+=" for letter in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _start(program: str, table: str) -> tuple[str, ...]:
    return (program, "--wait", "5", "--table", table)


_WORDS_BEFORE = len(_start(IPV4, "filter"))
