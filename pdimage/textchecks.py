"""What single texts of a description must be. Each check takes a text and returns what is wrong with it, or None."""

from urllib.parse import urlsplit

from fussy import manifest
from paradrop.lib.checks import matches, plain

version = matches(r"[0-9A-Za-z][0-9A-Za-z.+~:_-]{0,99}", 'a version such as "1.0" or "2024.06-rc1"')
debian_package = matches(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[0-9A-Za-z.+~:-]+)?",
                         "a package, as name or name=version")
python = matches(r"3\.(1[1-9]|[2-9][0-9])", 'a version such as "3.11", the lowest that the router\'s programs run on')
glibc = matches(r"2\.[0-9]{2}", 'a version such as "2.36"')
mode = matches("0?[0-7]{3}", 'permission bits such as "0644"')
size = matches("[0-9]{1,12}[KMG]?", "a number of bytes, or such as 256M")


def address(text: str) -> str | None:
    """Refuse what is no http address."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    return None if good else "must be an address such as 'http://127.0.0.1:9000/'"


def release_name(text: str) -> str | None:
    """Refuse what can't be the name of a release."""
    return next(iter(manifest.check_name(text)), None)


def absolute(text: str) -> str | None:
    """Refuse what is no absolute path in its plain form."""
    good = text.startswith("/") and ".." not in text.split("/") and not plain(text)
    return None if good else "must be an absolute path without .."


def not_all(text: str) -> str | None:
    """Refuse the root of the file system."""
    return "must be a part of the file system, such as /etc/config" if not text.strip("/") else None


def path_in_tree(text: str) -> str | None:
    """Refuse a path that does not stay in the tree, or that is the image's own."""
    if problem := manifest.unsafe_path(text.encode("utf-8", "surrogateescape")):
        return f"must be a path in the tree such as etc/motd: this one {problem}"
    if text.split("/")[0] == ".fussy":
        return "must not be below .fussy, which describes the release"
    return None
