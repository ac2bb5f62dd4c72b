"""What all section types share: reading options, finding other sections, commands and their undo."""

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote

from paradrop.backend.pdconfd.config.command import Command
from paradrop.backend.pdconfd.config.effects import Step
from paradrop.lib.errors import ParadropError
from paradrop.lib.utils.ucitext import Section

Key: TypeAlias = tuple[str, str]
AllConfigs: TypeAlias = Mapping[Key, "ConfigObject"]
Found = TypeVar("Found", bound="ConfigObject")


class ConfigError(ParadropError):
    """A section cannot be used; the others can."""


class SectionNotFound(ConfigError):
    """A section refers to one that is not there (yet)."""


class Surroundings(Protocol):
    """What sections need to know of the manager."""

    writeDir: str
    ipv6: bool


class Option(TypedDict):
    """An option of a section type, in the documented form."""

    name: str
    type: type
    required: bool
    default: Any


def option_list(values: type) -> list[Option]:
    """Return the options that a dataclass of values stands for; a field without default is required.

    Fields are str, int, bool or tuple[str, ...] (a list in UCI), or one of them or None.
    """
    hints = typing.get_type_hints(values)
    return [{"name": field.name, "type": _plain_type(hints[field.name]),
             "required": field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
             "default": _default(field)}
            for field in dataclasses.fields(values)]


def _plain_type(hint: Any) -> type:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    plain: type = typing.get_origin(hint) or hint
    return list if plain is tuple else plain


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


class ConfigObject:
    """One section.

    Subclasses name their type (``typename``), their options (``values_type``, a frozen dataclass; ``options`` is the
    documented list made from it) and say in steps() what they ask of the system.
    """

    nextId: ClassVar[int] = 0
    typename: ClassVar[str | None] = None
    options: ClassVar[list[Option]] = []
    values_type: ClassVar[type]

    #: Section types whose coming, going and changing can matter to this one without its naming a section of them;
    #: concerns() says of which ones it really does.
    watches: ClassVar[tuple[str, ...]] = ()

    values: Any

    def __init__(self, manager: Surroundings, source: str, name: str, comment: str | None = None) -> None:
        self.manager = manager
        self.source = source
        self.name = name
        self.comment = comment
        self.anonymous = False
        self.section: Section = ({}, {})  # as the file has it
        self.dependents: set[ConfigObject] = set()
        self.missing: set[Key] = set()
        self.applied: list[Command] = []
        self.executed: list[Command] = []
        self.problem: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @classmethod
    def build(cls, manager: Surroundings, source: str, name: str | None, options: Mapping[str, Any],
              comment: str | None) -> Self:
        """Build a config object instance from the UCI section.

        Arguments:
            source: file containing this configuration section
            name: name of the configuration section; if None, the option ``name`` is used, or else a unique name is
                generated
            options: dictionary of options loaded from the section; lists are below the key ``list``
            comment: comment string or None

        Raises:
            ConfigError: a required option is missing, or a value makes no sense.
        """
        given: dict[str, Any] = {key: value for key, value in options.items() if key != "list"}
        given.update(options.get("list", {}))
        own = name or given.get("name")
        if own is None:
            own = f"s{ConfigObject.nextId:08x}"
            ConfigObject.nextId += 1
        found = cls(manager, source, str(own), comment)
        found.anonymous = not (name or given.get("name"))
        plain = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in given.items())
        found.values = cls._values(plain, f"{cls.typename} {own}")
        try:
            found.check()
        except ValueError as error:
            raise ConfigError(f"cannot use the section {cls.typename} {own}: {error}") from None
        return found

    @classmethod
    @functools.lru_cache(maxsize=2048)
    def _values(cls, options: tuple[tuple[str, Any], ...], where: str) -> Any:
        """Return the values of options; most sections are the same at each load."""
        given = dict(options)
        values: dict[str, Any] = {}
        mistakes = []
        for option in cls.options:
            name = option["name"]
            if name not in given:
                if option["required"]:
                    mistakes.append(f"{name} is missing")
                continue
            try:
                values[name] = _parse(option["type"], given[name])
            except ValueError as error:
                mistakes.append(f"{name}: {error}")
        if mistakes:
            raise ConfigError(f"cannot use the section {where}: " + "; ".join(mistakes))
        return cls.values_type(**values)

    def check(self) -> None:
        """Look at what can be judged without the other sections.

        Raises:
            ConfigError, ValueError: the values make no sense.
        """

    def getTypeAndName(self) -> Key:
        """Return tuple (section type, section name)."""
        return (str(self.typename), self.name)

    @property
    def identity(self) -> Hashable:
        """Equal for sections that say the same; if they are anonymous, they are of the same file and owner, too."""
        owner = (self.source, self.comment) if self.anonymous else (self.name,)
        return (self.typename, self.values, *owner)

    def optionsMatch(self, other: "ConfigObject") -> bool:
        """Test equality of config sections by comparing option values."""
        return type(self) is type(other) and bool(self.values == other.values)

    def addDependent(self, dep: "ConfigObject") -> None:
        """Note that a section must be looked at again whenever this one changes."""
        self.dependents.add(dep)

    def lookup(self, allConfigs: AllConfigs, sectionType: str, sectionName: str,
               addDependent: bool = True) -> "ConfigObject":
        """Look up a section by type and name.

        If *addDependent* is True (default), the current object will be added as a dependent of the found section.

        Raises:
            SectionNotFound: there is none. This section is looked at again when it comes.
        """
        found = allConfigs.get((sectionType, sectionName))
        if found is None:
            self.missing.add((sectionType, sectionName))
            raise SectionNotFound(f"cannot apply {self.typename} {self.name}: there is no {sectionType} {sectionName}")
        if addDependent:
            found.addDependent(self)
        return found

    def find(self, allConfigs: AllConfigs, kind: type[Found], name: str) -> Found:
        """Look up a section of a type known to Python; otherwise like lookup()."""
        found = self.lookup(allConfigs, str(kind.typename), name)
        assert isinstance(found, kind)
        return found

    def all_of(self, allConfigs: AllConfigs, kind: type[Found]) -> Iterable[Found]:
        """Return all sections of a type."""
        return [config for config in allConfigs.values() if isinstance(config, kind)]

    def concerns(self, other: "ConfigObject") -> bool:
        """Return whether it can matter to this section that one of a watched type came, went or changed."""
        return True

    def steps(self, allConfigs: AllConfigs) -> Iterable[Step]:
        """Return what this section asks of the system, in order, each step with its undo.

        Raises:
            ConfigError: what it asks for makes no sense, or a section that it refers to is missing.
            ValueError: an address or a number is none.
        """
        return ()

    def made_links(self, allConfigs: AllConfigs) -> Mapping[str, tuple[str, ...]]:
        """Return the network links that this section makes for an interface section: name, and how it is made."""
        return {}

    def commands(self, allConfigs: AllConfigs) -> list[Command]:
        """Return a list of commands to execute.

        Each one is a Command object.
        """
        return [Command(step.priority, step.do, self, step=step) for step in self.steps(allConfigs)]

    def undoCommands(self, allConfigs: AllConfigs) -> list[Command]:
        """Return a list of commands to execute.

        Each one is a Command object. They undo what was applied, even if options or other sections changed since;
        of a section that was not applied by a manager they undo what commands() would do.
        """
        done = self.applied or self.commands(allConfigs)
        return [undo for command in reversed(done) if (undo := command.undo())]

    def failure(self) -> str | None:
        """Return why this section is not in force, or None."""
        return self.problem or next((command.failure for command in self.applied if command.failed), None)

    def place(self, program: str) -> str:
        """Return the path, less its ending, of the files that a daemon of this section has."""
        return f"{self.manager.writeDir}/{program}-{quote(self.name, safe=' ')}"

    def dump(self) -> dict[str, Any]:
        """Return the section as data: type, name, comment, source and the value of every option."""
        return {"type": self.typename, "name": self.name, "comment": self.comment, "source": self.source,
                "options": dataclasses.asdict(self.values)}


def _parse(kind: type, value: Any) -> Any:
    """Return the value of an option of that type.

    Anything but 0 and False is true. One text where a list is wanted is split at blanks, as OpenWrt does.
    """
    if kind is list:
        return tuple(map(_text, value if isinstance(value, list | tuple) else str(value).split(" ")))
    if isinstance(value, list | tuple):
        raise ValueError("is a list, one value is wanted")
    if kind is bool:
        return str(value) not in ("0", "False")
    if kind is int:
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
    return _text(value)


def _text(value: Any) -> str:
    """Return a value as text; line ends and other control characters could end up in a daemon's configuration."""
    text = str(value)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError("has a control character in it")
    return text
