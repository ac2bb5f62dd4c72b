"""Does a piece of work in a process of its own, whose memory is free again when the work is done.

What verifies metadata (python-tuf, and cryptography below it) takes 9 MB that no process gives back, and installing
needs as much as there is.
"""

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from fussy import parent
from fussy.errors import FussyError, SystemSetup

Result = TypeVar("Result")


def call(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what WORK returns, or raise what it raises, done in a fork of this process that ends with it.

    Result and error must be what pickle can take.

    :raises SystemSetup: the process was killed, as the kernel does where memory is short
    """
    reader, writer = os.pipe()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(own, writer, work, arguments)
    os.close(writer)
    try:
        with open(reader, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not answer:
        raise SystemSetup(f"cannot verify the channel: the process that does it was killed by signal "
                          f"{os.WTERMSIG(status)}; look whether memory is short, and run again")
    error, result = pickle.loads(answer)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _be_child(asker: int, writer: int, work: Callable[..., object], arguments: tuple[object, ...]) -> NoReturn:
    """Work, send the outcome, end: without what the parent would still do on its way out."""
    if not parent.end_with(asker, signal.SIGKILL):
        os._exit(1)
    try:
        try:
            answer = pickle.dumps((None, work(*arguments)))
        except (FussyError, OSError, ImportError, MemoryError) as error:
            answer = pickle.dumps((error, None))
        except BaseException:
            answer = pickle.dumps((RuntimeError(traceback.format_exc()), None))
        with suppress(OSError), open(writer, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
