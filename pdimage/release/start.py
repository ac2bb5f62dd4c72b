"""Runs one program of this release with the Python packages of this release: start.py MODULE:FUNCTION ARGUMENT...

Nothing of the system's Python is used but its standard library, and nothing is written into the release.
"""

import contextlib
import importlib
import os
import pathlib
import sys

release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib", "python"))
module, _, function = sys.argv.pop(1).partition(":")
if module.startswith("paradrop."):
    from paradrop.lib import settings

    settings.addSetting("CHUTE_IMAGE_DIR", os.path.join(release, "share", "oci"))
    with contextlib.suppress(FileNotFoundError):
        settings.updateSettings(pathlib.Path(release, "etc", "paradrop", "settings"))
sys.argv[0] = os.environ["RELEASE_PROGRAM"]
raise SystemExit(getattr(importlib.import_module(module), function)())
