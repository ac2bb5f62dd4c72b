"""Follows a channel as a device does: from a root to every target, with python-tuf's own client."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Targets
from tuf.ngclient import FetcherInterface, Updater

from fussy.errors import BadBundle
from fussy.publishing import metadata, offers
from fussy.publishing.errors import BadChannel
from fussy.publishing.places import Places

_BLOCK = 1 << 20


class Files(FetcherInterface):
    """Fetches from the file system, as from a web server that has no more than these files."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with open(unquote(urlsplit(url).path), "rb") as file:
                while block := file.read(_BLOCK):
                    yield block
        except OSError as error:
            raise DownloadHTTPError(f"{error.filename}: {error.strerror}", 404) from error


def client(where: Places, directory: Path, root: bytes) -> Updater:
    """Return a client that trusts ROOT and keeps what it fetches in DIRECTORY."""
    (directory / "metadata").mkdir(exist_ok=True)
    (directory / "targets").mkdir(exist_ok=True)
    return Updater(str(directory / "metadata"), where.metadata.as_uri(), str(directory / "targets"),
                   where.targets.as_uri(), Files(), bootstrap=root)


def check(where: Places, root: Path | None = None) -> int:
    """Follow the channel from a ROOT (the first one otherwise), read every target; return how many there are.

    :raises BadChannel: a client could not; all targets that are wrong are told
    """
    published = metadata.loaded(where)
    try:
        first = (root or where.metadata / "1.root.json").read_bytes()
    except OSError as error:
        raise BadChannel(f"cannot verify {where.channel}: {error.filename}: {error.strerror}") from error
    wrong, count = [], 0
    with tempfile.TemporaryDirectory(prefix="fussy-verify-") as directory:
        updater = client(where, Path(directory), first)
        try:
            updater.refresh()
            for product in sorted(published.products):
                updater.get_targetinfo(f"{product}/")  # fetches and verifies the line's metadata
        except (RepositoryError, DownloadError) as error:
            raise BadChannel(f"cannot verify {where.channel}: {error}; renew what has expired, bring back what is "
                             "missing from a copy") from error
    for line in published.products.values():
        for path, problem in faults(where, line.signed):
            count += 1
            wrong += [f"{path} {problem}"] if problem else []
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise BadChannel(f"cannot verify {where.channel}: {'; '.join(wrong[:5])}{more}; bring them back from a copy, "
                         "or withdraw the release")
    return count


def faults(where: Places, targets: Targets) -> Iterator[tuple[str, str]]:
    """Yield each target's path with what is wrong with it, or ''."""
    for path, one in targets.targets.items():
        directory, _, name = path.rpartition("/")
        file = where.targets / directory / f"{one.hashes['sha256']}.{name}"
        try:
            offers.offer_of(one)
            with file.open("rb") as opened:
                one.verify_length_and_hashes(opened)
        except OSError as error:
            yield path, f"can't be read: {error.strerror}"
        except (RepositoryError, BadBundle) as error:
            yield path, f"is damaged: {error}"
        else:
            yield path, ""
