"""Runs the command: ``python -m paradrop.image``."""

from paradrop.image.cli import main

main()
