"""Compiles Python modules: ``compiler.py LIBRARY OUTPUT LIST``; run by :mod:`pdimage.bytecode`, alone in its process.

LIST is a file with the modules' paths in LIBRARY, each ended by a NUL. The results go where Python looks for them
(PEP 3147) below OUTPUT. They hold the hash of their source, which Python compares (PEP 552, checked), and nothing of
where or when they were made.
"""

import contextlib
import importlib.util
import marshal
import os
import sys
from pathlib import Path

# Later formats of marshal note how often an object was referred to in the process that wrote it.
_FORMAT = 2
_CHECKED_HASH = (0b11).to_bytes(4, "little")


def main(library: Path, output: Path, names: list[str]) -> None:
    """Compile the modules NAMES of LIBRARY; those that aren't Python of this version are passed over."""
    for name in names:
        source = (library / name).read_bytes()
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
            result = Path(importlib.util.cache_from_source(os.fspath(output / name)))
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_bytes(importlib.util.MAGIC_NUMBER + _CHECKED_HASH + importlib.util.source_hash(source)
                               + marshal.dumps(code, _FORMAT))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_text().split("\0")[:-1])
