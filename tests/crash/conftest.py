"""The keys of the fussy tests."""

from tests.fussy.conftest import keys

__all__ = ["keys"]
