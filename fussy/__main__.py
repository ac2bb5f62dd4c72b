"""``python -m fussy`` is ``fussy``."""

from fussy.cli import main

main()
