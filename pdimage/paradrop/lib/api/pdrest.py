"""The documented REST decorators and resources, free of any server.

A resource's methods are marked with what they answer, ``@POST("^/v1/chute/create$")``, and each instance registers its
own. :class:`Request` is one HTTP exchange as those methods see it; the server that carries it (``pdfcd.app``) makes it
of what came over the wire, renders, and sends what is in it.
"""

import functools
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from paradrop.lib import settings
from paradrop.lib.api import pdapi
from paradrop.lib.api.wire import str2json

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

NOT_DONE_YET = object()
"""What a callback returns when its answer is not complete: it comes from ``request.stream``."""


@dataclass
class Request:
    """One HTTP exchange: what the client sent, and what it gets."""

    method: str
    path: str
    client: str = "127.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    role: str | None = None
    """The role of the one who asks, if he said who he is and proved it."""
    user: str | None = None
    code: int = pdapi.OK
    answerHeaders: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[str] | None = None

    def getHeader(self, name: str) -> str | None:
        """Return a header of the request by its name in any case, None if there is none."""
        return self.headers.get(name.lower())

    def getClientIP(self) -> str:
        """Return the address of the other end of the connection."""
        return self.client

    def setResponseCode(self, code: int, message: str = "") -> None:
        """Set the status code. The reason text goes to the log only: it means nothing in HTTP (RFC 9112, section 4)."""
        self.code = code
        if code != pdapi.OK:
            log.info("%s %s: %d %s", self.method, self.path, code, message)

    def setHeader(self, name: str, value: str) -> None:
        """Set a header of the answer."""
        self.answerHeaders[name] = value


class Resource(Protocol):
    """Something that answers a request with text or NOT_DONE_YET."""

    def render(self, request: Request) -> object: ...


@dataclass(frozen=True)
class Answer:
    """A resource whose answer is known already."""

    content: object

    def render(self, request: Request) -> object:
        return self.content


def maybeResource(f: Callable[..., object]) -> Callable[..., Resource]:
    """Make a function return a resource, whatever it returns now."""
    @functools.wraps(f)
    def inner(*args: Any, **kwargs: Any) -> Resource:
        result = f(*args, **kwargs)
        return result if callable(getattr(result, "render", None)) else Answer(result)  # type: ignore[return-value]
    return inner


def method_factory_factory(method: str) -> Callable[[str], Callable[[Function], Function]]:
    """Return the decorator that marks methods of a resource as answering METHOD on a path; "ALL" is every method."""
    def factory(regex: str) -> Callable[[Function], Function]:
        def decorator(function: Function) -> Function:
            marks = [*getattr(function, "_answers", []), (method, regex)]
            setattr(function, "_answers", marks)  # noqa: B010 (the type has no such attribute)
            return function
        return decorator
    factory.__doc__ = f"""Mark a method as answering {method} on the paths that the regular expression finds."""
    return factory


ALL = method_factory_factory("ALL")
GET = method_factory_factory("GET")
POST = method_factory_factory("POST")
PUT = method_factory_factory("PUT")
DELETE = method_factory_factory("DELETE")


class APIResource:
    """A resource that finds the callback for a request by its method and path, the first registered first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._registry: list[tuple[str, re.Pattern[str], Callable[..., object]]] = []
        self.registerAll(self)

    def registerAll(self, module: object) -> None:
        """Register every marked method of an object, in the order of their definition."""
        for name in (name for cls in type(module).__mro__ for name in vars(cls)):
            for method, regex in getattr(getattr(type(module), name, None), "_answers", ()):
                self.register(method, regex, getattr(module, name))

    def register(self, method: str, regex: str, callback: Callable[..., object]) -> None:
        """Let ``callback(request, **named groups)`` answer a method on the paths that the expression finds."""
        self._registry.append((method, re.compile(regex), callback))

    def unregister(self, method: str | None = None, regex: str | None = None,
                   callback: Callable[..., object] | None = None) -> None:
        """Forget what was registered with all of the values given. Without any value nothing is forgotten."""
        if method is None and regex is None and callback is None:
            return
        self._registry = [entry for entry in self._registry if not (
            method in (None, entry[0]) and regex in (None, entry[1].pattern) and callback in (None, entry[2]))]

    def methods(self, path: str) -> set[str]:
        """Return the methods that some callback of this path answers."""
        return {method for method, expression, _ in self._registry if expression.search(path) and method != "ALL"}

    @maybeResource
    def getChild(self, name: str, request: Request) -> object:
        """Return the resource for a request; ``name`` is its path."""
        for method, expression, callback in self._registry:
            found = expression.search(name)
            if found and method in (request.method, "ALL"):
                return callback(request, **found.groupdict())
        return self.default(request)

    def default(self, request: Request) -> object:
        """Answer a request that nothing was registered for."""
        request.setResponseCode(404, "Not Found")
        return "Not Found\n"


class APIPackage:
    """The input of an API function, and the place for its result.

    ``result`` is True after success, False after failure, None when the answer is not done yet. ``inputArgs`` holds the
    arguments from the body, of those that the function named and no others.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.inputArgs: dict[str, Any] = {}
        self.ip = request.getClientIP()
        self.tictoc = time.monotonic()
        self.devid = request.user
        self.result: bool | None = False
        self.returnVal: object = None
        self.errType = pdapi.ERR_CONTACTPD
        self.errMsg: str | None = None
        self.countFailure = True

    def setSuccess(self, returnVal: object) -> None:
        """The call succeeded, and this is its answer."""
        self.result, self.returnVal = True, returnVal

    def setFailure(self, errType: int, errMsg: str | None = None, countFailure: bool = True) -> None:
        """The call failed; ``countFailure``: it counts against the caller, who is locked out after too many."""
        self.result, self.errType, self.errMsg, self.countFailure = False, errType, errMsg, countFailure

    def setNotDoneYet(self) -> None:
        """The answer comes later, through ``request.stream``."""
        self.result = None


# Which roles have the documented permissions
_PERMISSIONS = {None: ("viewer", "operator", "admin"), "Chute Owner": ("operator", "admin"), "AP Owner": ("admin",)}


def APIDecorator(admin: bool = False, permission: str | None = None, requiredArgs: Sequence[str] = (),
                 optionalArgs: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., object]]:
    """Let an API function do its own job only: it gets an APIPackage and leaves its result there.

    Before it: the headers are set, a caller with too many failures is refused (``preprocess``), the arguments are
    taken from the JSON body, and a caller who said who he is must have the right. After it: ``failprocess`` or
    ``postprocess``. Those are methods of ``self.rest``, the ParadropAPIServer.

    Args:
        admin: an identified caller must be an administrator.
        permission: None, "AP Owner" (administrator) or "Chute Owner" (operator).
        requiredArgs: without one of these the answer is 400, ``Malformed Body: …``.
        optionalArgs: these may be there too; any other key of the body is left alone.
    """
    allowed = _PERMISSIONS["AP Owner" if admin else permission]

    def decorator(function: Callable[..., Any]) -> Callable[..., object]:
        @functools.wraps(function)
        def wrapper(theSelf: Any, request: Request, *args: Any, **kwargs: Any) -> object:
            rest = theSelf.rest
            request.setHeader("Access-Control-Allow-Origin", str(settings.PDFCD_HEADER_VALUE))
            package = APIPackage(request)
            refusal = rest.preprocess(request, (package.ip, None, request.user, rest.failureDict), package.tictoc)
            if refusal is not None:
                return refusal
            try:
                package.inputArgs = extractArgs(request.body, requiredArgs, optionalArgs)
                if request.role is not None and request.role not in allowed:
                    raise pdapi.PDAPIError(pdapi.ERR_BADAUTH, "this needs the role " + " or ".join(allowed))
                function(theSelf, package, *args, **kwargs)
            except pdapi.PDAPIError as error:
                package.setFailure(error.etype, error.msg, countFailure=error.etype == pdapi.ERR_BADAUTH)
            usage = (package.tictoc, package.devid)
            if package.result is None:
                return NOT_DONE_YET
            if package.result:
                rest.postprocess(request, package.ip, rest.failureDict, usage)
                return package.returnVal
            failure = (package.ip, rest.failureDict) if package.countFailure else None
            prefix = "Malformed Body: %s" if package.errType == pdapi.ERR_BADPARAM else "%s"
            statement = prefix % (package.errMsg or pdapi.getResponse(package.errType)[1])
            return rest.failprocess(package.ip, request, failure, statement, usage, package.errType)
        return wrapper
    return decorator


def extractArgs(body: bytes, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """Return the named arguments out of a JSON body, percent-decoded.

    Raises:
        PDAPIError: the body is no JSON object, or lacks a required argument.
    """
    if not required and not body.strip():
        return {}
    try:
        content = str2json(body)
    except ValueError as error:
        raise pdapi.PDAPIError(pdapi.ERR_BADPARAM, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise pdapi.PDAPIError(pdapi.ERR_BADPARAM, "not a JSON object")
    missing = [name for name in required if name not in content]
    if missing:
        raise pdapi.PDAPIError(pdapi.ERR_BADPARAM, "missing " + ", ".join(missing))
    return {name: content[name] for name in (*required, *optional) if name in content}
