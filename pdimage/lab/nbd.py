"""A small NBD server on a Unix socket, for a disk that loses power.

The contract is the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md): fixed newstyle
handshake, simple replies; READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, DISC and FUA. There is one export, whose name is
empty. When the disk loses power every connection is dropped, without answers, and none is taken any more.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import TracebackType

from pdimage.lab.volatile import Disk, PowerCut
from pdimage.lab.writelog import SECTOR, Write

_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
# has flags, flush, FUA, trim, write zeroes
_EXPORT_FLAGS = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_FUA = 1
_EINVAL, _ENOSPC = 22, 28


class Option(IntEnum):
    """What a client may ask for in the handshake."""

    EXPORT_NAME, ABORT, LIST, INFO, GO = 1, 2, 3, 6, 7


class Reply(IntEnum):
    """Kinds of answers to that."""

    ACK, SERVER, INFO = 1, 2, 3
    UNSUPPORTED, INVALID, UNKNOWN = 1 << 31 | 1, 1 << 31 | 3, 1 << 31 | 6


class Command(IntEnum):
    """What it may ask for afterwards."""

    READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6


# What the protocol lets a client expect to be taken in one request.
MOST_BYTES = 32 << 20
_LONGEST_OPTION = 8192
_REQUEST = struct.Struct(">IHHQQI")


class Gone(Exception):
    """The client went away, or does not speak the protocol."""


class Server:
    """A context that offers DISK on the Unix socket PATH; in the end all connections are closed, the socket is gone."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.disk, self.path = disk, path
        self._listener = socket.socket(socket.AF_UNIX)
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._open = True
        disk.on_cut.append(self._hang_up)

    def __enter__(self) -> "Server":
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._hang_up()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def change(self, disk: Disk) -> None:
        """Have another disk of the same size in the place of the one that is there; no client notices."""
        disk.on_cut.append(self._hang_up)
        self.disk = disk

    def _start(self, work: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="nbd", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hang_up(self) -> None:
        with self._lock:
            self._open = False
            for connection in (self._listener, *self._connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._open:
                    connection.close()
                    return
                self._connections.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        client = Client(connection, self)
        try:
            with contextlib.suppress(Gone, PowerCut, OSError):
                if client.negotiate():
                    client.transmit()
        finally:
            with self._lock:
                self._connections.discard(connection)
                connection.close()


class Client:
    """One connection to SERVER."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self._connection, self._server = connection, server

    def negotiate(self) -> bool:
        """Do the handshake; return whether the client wants to read and write then.

        :raises Gone: it does not speak the protocol
        """
        self._connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
        flags, = struct.unpack(">I", self._receive(4))
        if not flags & _FIXED_NEWSTYLE or flags & ~(_FIXED_NEWSTYLE | _NO_ZEROES):
            raise Gone
        while True:
            magic, option, length = struct.unpack(">8sII", self._receive(16))
            if magic != b"IHAVEOPT" or length > _LONGEST_OPTION:
                raise Gone
            data = self._receive(length)
            match option:
                case Option.EXPORT_NAME:
                    if data:
                        raise Gone  # this option has no way to say no but hanging up
                    export = struct.pack(">QH", self._server.disk.size, _EXPORT_FLAGS)
                    self._connection.sendall(export if flags & _NO_ZEROES else export + bytes(124))
                    return True
                case Option.ABORT:
                    self._reply(option, Reply.ACK)
                    return False
                case Option.LIST if data:
                    self._reply(option, Reply.INVALID)
                case Option.LIST:
                    self._reply(option, Reply.SERVER, struct.pack(">I", 0))
                    self._reply(option, Reply.ACK)
                case Option.INFO | Option.GO:
                    if self._describe(option, data) and option == Option.GO:
                        return True
                case _:
                    self._reply(option, Reply.UNSUPPORTED)

    def _describe(self, option: int, data: bytes) -> bool:
        """Answer INFO or GO; return whether it is about our export."""
        length = int.from_bytes(data[:4], "big")
        if len(data) < 6 or (len(data) - length - 6) % 2 or len(data) < length + 6:
            self._reply(option, Reply.INVALID)
            return False
        if length:
            self._reply(option, Reply.UNKNOWN)
            return False
        self._reply(option, Reply.INFO, struct.pack(">HQH", _INFO_EXPORT, self._server.disk.size, _EXPORT_FLAGS))
        self._reply(option, Reply.INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, SECTOR, MOST_BYTES))
        self._reply(option, Reply.ACK)
        return True

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._connection.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)

    def transmit(self) -> None:
        """Answer requests until the client disconnects.

        :raises PowerCut: the disk lost power
        :raises Gone: the client went away, or sends what can't be a request
        """
        while True:
            magic, flags, command, cookie, offset, length = _REQUEST.unpack(self._receive(_REQUEST.size))
            if magic != 0x25609513 or (command in (Command.READ, Command.WRITE) and length > MOST_BYTES):
                raise Gone
            if command == Command.DISCONNECT:
                return
            data = self._receive(length) if command == Command.WRITE else None
            error, answer = self._do(command, flags, offset, length, data)
            self._connection.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + answer)

    def _do(self, command: int, flags: int, offset: int, length: int, data: bytes | None) -> tuple[int, bytes]:
        """Do what is asked for; return an error (0 for none), and what was read."""
        if offset + length > self._server.disk.size:
            return (_EINVAL if command == Command.READ else _ENOSPC), b""
        match command:
            case Command.READ:
                return 0, self._server.disk.read(offset, length)
            case Command.FLUSH:
                self._server.disk.flush()
            case Command.WRITE | Command.TRIM | Command.WRITE_ZEROES:  # what is trimmed reads as zeroes here
                self._server.disk.write(Write(offset, length, data, bool(flags & _FUA)))
            case _:
                return _EINVAL, b""
        return 0, b""

    def _receive(self, length: int) -> bytes:
        parts = []
        while length:
            part = self._connection.recv(min(length, 1 << 20))
            if not part:
                raise Gone
            parts.append(part)
            length -= len(part)
        return b"".join(parts)
