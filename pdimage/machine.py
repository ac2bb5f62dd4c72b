"""The kind of machine that an image is for, as wheels and Debian packages name it."""

import functools
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging import tags
from packaging.markers import default_environment

# The C library that each tag of the old naming stands for (PEP 513, 571 and 599).
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
# Names of processors: as uname(1) says, as Debian does, as container images do (OCI Image Format 1.0, "architecture").
_NAMES = {"x86_64": ("amd64", "amd64"), "aarch64": ("arm64", "arm64"), "armv7l": ("armhf", "arm"),
          "armv6l": ("armel", "arm"), "i686": ("i386", "386"), "ppc64le": ("ppc64el", "ppc64le"),
          "s390x": ("s390x", "s390x"), "riscv64": ("riscv64", "riscv64"), "mips64": ("mips64el", "mips64le")}
PROCESSORS = tuple(_NAMES)


@dataclass(frozen=True)
class Machine:
    """What the parts must fit: ``python`` as in 3.11, ``processor`` as ``uname -m`` says, ``glibc`` as in 2.36."""

    python: str
    processor: str
    glibc: str

    @classmethod
    def here(cls) -> "Machine":
        """Return the machine that this program runs on."""
        libc, version = platform.libc_ver()
        return cls(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine(),
                   version if libc == "glibc" else "2.17")

    def __str__(self) -> str:
        return f"Python {self.python} on {self.processor} (glibc {self.glibc})"

    @property
    def debian(self) -> str:
        """Debian's name of the processor, such as amd64."""
        return _NAMES.get(self.processor, (self.processor,))[0]

    @property
    def container(self) -> str:
        """The processor's name in container images, such as amd64."""
        return _NAMES.get(self.processor, (self.processor,))[-1]

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags that fit, best first (PEP 600)."""
        return tuple(self._platforms())

    def _platforms(self) -> Iterator[str]:
        oldest = 5 if self.processor in ("x86_64", "i686") else 17
        for minor in range(_numbers(self.glibc)[1], oldest - 1, -1):
            yield f"manylinux_2_{minor}_{self.processor}"
            if minor in _LEGACY:
                yield f"{_LEGACY[minor]}_{self.processor}"
        yield f"linux_{self.processor}"

    @property
    def abi(self) -> str:
        """The tag of Python's own binary interface, such as cp311."""
        major, minor = _numbers(self.python)
        return f"cp{major}{minor}"

    def ranks(self) -> Mapping[tags.Tag, int]:
        """Return each tag of a wheel that fits (PEP 425), with its rank: lower is better."""
        return _ranks(self)

    def environment(self) -> dict[str, str]:
        """Return the environment in which requirements' markers are true or false (PEP 508)."""
        facts = {key: str(value) for key, value in default_environment().items()}
        if not facts["python_full_version"].startswith(f"{self.python}."):
            facts |= {"python_version": self.python, "python_full_version": f"{self.python}.0",
                      "implementation_version": f"{self.python}.0"}
        return facts | {"platform_machine": self.processor, "platform_release": "", "platform_version": ""}


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _ranks(machine: Machine) -> Mapping[tags.Tag, int]:
    version = _numbers(machine.python)
    fitting = [*tags.cpython_tags(version, [machine.abi], machine.platforms),
               *tags.compatible_tags(version, machine.abi, machine.platforms)]
    return {tag: rank for rank, tag in reversed(list(enumerate(fitting)))}
