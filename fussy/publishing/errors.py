"""What can be wrong with a channel, beside the errors of :mod:`fussy.errors`.

::

    FussyError
    ├── Waiting              60   all is prepared, but signatures are missing; the message says whose
    └── BadChannel           61   a client could not follow the channel as it is
"""

from fussy.errors import FussyError


class Waiting(FussyError):
    """What was asked for is prepared, and published once others have signed it."""

    exit_code = 60


class BadChannel(FussyError):
    """The files of a channel are damaged, missing, expired or not signed by those who must."""

    exit_code = 61
