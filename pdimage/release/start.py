"""Runs one program of this release with the Python packages of this release: start.py MODULE:FUNCTION ARGUMENT...

Nothing of the system's Python is used but its standard library, and nothing is written into the release.
"""

import importlib
import os
import sys

release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib", "python"))
module, _, function = sys.argv.pop(1).partition(":")
settings = os.path.join(release, "etc", "paradrop", "settings")
if module.startswith("paradrop.") and os.path.exists(settings):
    from paradrop.lib.settings import updateSettings

    updateSettings(importlib.import_module("pathlib").Path(settings))
sys.argv[0] = os.environ["RELEASE_PROGRAM"]
sys.exit(getattr(importlib.import_module(module), function)())
