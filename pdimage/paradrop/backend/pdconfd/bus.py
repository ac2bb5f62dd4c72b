"""The D-Bus face of pdconfd, on the system bus (DBUS_SYSTEM_BUS_ADDRESS says another one).

The bus lets the service own its name only with ``com.paradrop.config.conf``, beside this module, in
``/etc/dbus-1/system.d``.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from paradrop.lib.errors import ParadropError

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

log = logging.getLogger(__name__)

NAME = "com.paradrop.config"
PATH = "/"
START_LIMIT = 10.0  # seconds
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


class Method(NamedTuple):
    """A method of the interface: D-Bus signatures of what it takes and gives."""

    name: str
    takes: str
    gives: str


class Interface(NamedTuple):
    """A D-Bus interface."""

    name: str
    methods: tuple[Method, ...]


def introspection(interface: Interface) -> str:
    """Return the description of an object with an interface, as the D-Bus specification has it.

    >>> print(introspection(Interface("org.example", (Method("Load", "s", "b"),))))
    <node>
     <interface name="org.example">
      <method name="Load">
       <arg type="s" direction="in"/>
       <arg type="b" direction="out"/>
      </method>
     </interface>
    </node>
    """
    lines = ["<node>", f' <interface name="{interface.name}">']
    for method in interface.methods:
        lines += [f'  <method name="{method.name}">',
                  *(f'   <arg type="{kind}" direction="in"/>' for kind in method.takes),
                  *(f'   <arg type="{kind}" direction="out"/>' for kind in method.gives), "  </method>"]
    return "\n".join([*lines, " </interface>", "</node>"])


class Bus:
    """The service on the bus, in a thread of its own.

    Args:
        interface: what is offered.
        answer: called with a method's name and arguments, in a worker thread; returns the result.

    Raises:
        ParadropError: there is no bus, it refuses the name, or another process has it.
    """

    def __init__(self, interface: Interface, answer: Callable[[str, Sequence[Any]], Any]) -> None:
        self.interface = interface
        self.answer = answer
        self._bus: MessageBus | None = None
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pdconfd D-Bus", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result(START_LIMIT)
        except Exception as error:
            self.close()
            raise ParadropError(f"cannot offer {interface.name} on the system bus: {error}") from error

    def close(self) -> None:
        """Leave the bus."""
        self._loop.call_soon_threadsafe(self._leave)
        self._thread.join(START_LIMIT)

    def _leave(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()
        self._loop.stop()

    async def _connect(self) -> None:
        from dbus_fast import BusType, RequestNameReply
        from dbus_fast.aio import MessageBus
        self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._handle)
        reply = await self._bus.request_name(self.interface.name)
        if reply != RequestNameReply.PRIMARY_OWNER:
            raise OSError(f"the name has an owner ({reply.name})")

    def _handle(self, message: "Message") -> bool | None:
        """Take a call of one of our methods; it is answered later, when the work is done."""
        from dbus_fast import Message, MessageType
        if message.message_type != MessageType.METHOD_CALL:
            return None
        if (message.interface, message.member, message.path) == (INTROSPECTABLE, "Introspect", PATH):
            self._send(Message.new_method_return(message, "s", [introspection(self.interface)]))
            return True
        if message.interface not in (None, self.interface.name):
            return None
        method = next((method for method in self.interface.methods if method.name == message.member), None)
        if method is None or message.path != PATH:
            return None
        if message.signature != method.takes:
            self._send(Message.new_error(message, "org.freedesktop.DBus.Error.InvalidArgs",
                                         f"{method.name} takes '{method.takes}'"))
            return True
        task = self._loop.create_task(self._reply(message, method))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _reply(self, message: "Message", method: Method) -> None:
        from dbus_fast import Message
        try:
            result = await asyncio.to_thread(self.answer, method.name, message.body)
            reply = Message.new_method_return(message, method.gives, [result])
        except Exception as error:
            log.exception("cannot answer %s", method.name)
            reply = Message.new_error(message, f"{self.interface.name}.Error", str(error))
        self._send(reply)

    def _send(self, message: "Message") -> None:
        if self._bus is not None and self._bus.connected:
            self._bus.send(message)


def ask(method: str, arguments: Sequence[Any], timeout: float) -> Any:
    """Call a method of the service on the bus and return its result. All arguments are texts.

    Raises:
        ParadropError: there is no bus or no service, it refused, or no answer came in ``timeout`` seconds.
    """
    try:
        return asyncio.run(asyncio.wait_for(_ask(method, arguments), timeout))
    except Exception as error:
        raise ParadropError(f"cannot call {method} over D-Bus: {error or 'no answer in time'}") from error


async def _ask(method: str, arguments: Sequence[Any]) -> Any:
    from dbus_fast import BusType, Message, MessageType
    from dbus_fast.aio import MessageBus
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        reply = await bus.call(Message(destination=NAME, path=PATH, interface=NAME, member=method,
                                       signature="s" * len(arguments), body=list(arguments)))
        assert reply is not None
        if reply.message_type == MessageType.ERROR:
            raise OSError(f"{reply.error_name}: {' '.join(map(str, reply.body))}")
        return reply.body[0]
    finally:
        bus.disconnect()
