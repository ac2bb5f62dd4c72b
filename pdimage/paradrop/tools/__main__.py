"""``python -m paradrop.tools`` is the ``paradrop`` command."""

from paradrop.tools.cli import main

main(prog_name="paradrop")
