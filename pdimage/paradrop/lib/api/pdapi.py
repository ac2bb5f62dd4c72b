"""The documented codes of API answers, and the token that ties an answer to a line of the log."""

import secrets

OK = 200
ERR_BADPARAM = 400
ERR_TOKENEXPIRED = 401
ERR_BADFORMAT = 402
ERR_BADAUTH = 403
ERR_THRESHOLD = 404
ERR_BADMETHOD = 405
ERR_BADIO = 406
ERR_NOPATH = 407
ERR_CONTACTPD = 501
ERR_DATABASE = 502
ERR_STATETRANSITION = 503
ERR_CHUTESTATE = 504
ERR_UPDATEPENDING = 505
ERR_NOSTATUS = 506
ERR_RESETPENDING = 507
ERR_CHUTEINVALID = 508
ERR_UNIMPLEMENTED = 599

_TEXTS = {
    OK: "OK",
    ERR_BADPARAM: "Bad parameter: %s",
    ERR_TOKENEXPIRED: "Token expired",
    ERR_BADFORMAT: "Bad format: %s",
    ERR_BADAUTH: "Bad authorization",
    ERR_THRESHOLD: "Too many failed attempts",
    ERR_BADMETHOD: "Bad method",
    ERR_BADIO: "Bad input or output",
    ERR_NOPATH: "Path not found",
    ERR_CONTACTPD: "Contact Paradrop",
    ERR_DATABASE: "Database error",
    ERR_STATETRANSITION: "Bad state transition",
    ERR_CHUTESTATE: "Bad chute state",
    ERR_UPDATEPENDING: "Update pending",
    ERR_NOSTATUS: "No status",
    ERR_RESETPENDING: "Reset pending",
    ERR_CHUTEINVALID: "Chute invalid",
    ERR_UNIMPLEMENTED: "Unimplemented",
}


class PDAPIError(Exception):
    """An API call that cannot be answered: ``etype`` is one of the codes above, ``msg`` the text for the caller."""

    def __init__(self, etype: int, msg: str) -> None:
        super().__init__(msg)
        self.etype = etype
        self.msg = msg

    def __str__(self) -> str:
        return f"PDAPIError {self.etype}: {self.msg}"


def isPDError(code: int) -> bool:
    """Return True if the code is an error of the documented table.

    >>> isPDError(400), isPDError(200), isPDError(418)
    (True, False, False)
    """
    return code in _TEXTS and code != OK


def getResponse(code: int, *args: object) -> tuple[int, str]:
    """Return (code, text), made to be the arguments of Request.setResponseCode.

    Arguments that the code's text has no place for are dropped, places without an argument are left empty.

    >>> getResponse(400, "name")
    (400, 'Bad parameter: name')
    >>> getResponse(405, "name")
    (405, 'Bad method')
    """
    text = _TEXTS.get(code, "Unknown error")
    if "%s" in text:
        text = text.replace("%s", str(args[0]) if args else "").rstrip(": ")
    return code, text


def getErrorToken() -> str:
    """Return ten random digits that are both told to the client and written to the log."""
    return "".join(secrets.choice("0123456789") for _ in range(10))
