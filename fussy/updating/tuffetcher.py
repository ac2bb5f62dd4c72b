"""How python-tuf reads a source: in memory, with a cap on each file."""

from collections.abc import Iterator
from urllib.parse import unquote

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from fussy.updating import sources


class Fetcher(FetcherInterface):
    """Fetches metadata from a source; ``last`` is the path of the file asked for last.

    Errors are those of :mod:`fussy.updating.sources`, which python-tuf hands through, save for a missing file, by
    which it knows that there is no newer root.
    """

    def __init__(self, source: sources.Source) -> None:
        self._source = source
        self.last = ""

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """See :class:`tuf.ngclient.FetcherInterface`; nothing goes through files in /tmp."""
        self.last = unquote(url)
        try:
            return sources.read(self._source, self.last, max_length)
        except sources.Missing as error:
            raise DownloadHTTPError(str(error), 404) from error

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Never called: targets are fetched by :mod:`fussy.updating.downloads`."""
        raise NotImplementedError
