"""Runs one program of this release with the Python packages of this release.

``start.py MODULE:FUNCTION ARGUMENT...``, or the path of a script in the release in place of MODULE:FUNCTION. The
packages of the release go before those of the system's Python, and nothing is written into the release.
"""

import contextlib
import importlib
import operator
import os
import pathlib
import runpy
import sys

release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib", "python"))
module, colon, function = sys.argv.pop(1).partition(":")
if module.startswith("paradrop."):
    from paradrop.lib import settings

    settings.addSetting("CHUTE_IMAGE_DIR", os.path.join(release, "share", "oci"))
    with contextlib.suppress(FileNotFoundError):
        settings.updateSettings(pathlib.Path(release, "etc", "paradrop", "settings"))
sys.argv[0] = os.environ["RELEASE_PROGRAM"]
if colon:
    raise SystemExit(operator.attrgetter(function)(importlib.import_module(module))())
runpy.run_path(os.path.join(release, module), run_name="__main__")
