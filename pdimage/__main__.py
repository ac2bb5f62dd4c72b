"""``python -m pdimage``."""

from pdimage.cli import main

main()
