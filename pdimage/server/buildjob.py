"""The process of one build: reads ``task.json`` in its directory, builds, writes ``outcome.json``.

It runs shut off (:mod:`pdimage.server.sandbox`). What it prints is the build's log. ``stage`` in its directory says how
far it is.
"""

import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec

from fussy.errors import FussyError
from pdimage.server.builders import Impossible, Product, Task, TooBig, builder, imagebuilder
from pdimage.server.catalogue import Target
from pdimage.server.entries import Failure

TASK, OUTCOME, STAGE = "task.json", "outcome.json", "stage"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a build ended: a product with its manifest, a failure with its reason, or what an ImageBuilder has."""

    product: Product | None = None
    manifest: dict[str, str] = {}
    failure: Failure = ""
    error: str = ""
    target: Target | None = None


def run(place: Path) -> Outcome:
    """Build what the task in PLACE says."""
    def tell(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    task = msgspec.json.decode((place / TASK).read_bytes(), type=Task)
    chosen = builder(task.distro.builder)
    try:
        if task.survey:
            return Outcome(target=imagebuilder.survey(task, tell))
        manifest = dict(chosen.manifest(task, tell))
        check_versions(task, manifest)
        (place / STAGE).write_text("building")
        return Outcome(chosen.build(task, manifest, tell), manifest)
    except Impossible as error:
        return Outcome(failure="impossible", error=str(error))
    except TooBig as error:
        return Outcome(failure="too-big", error=str(error))
    except FussyError as error:
        return Outcome(failure="failed", error=str(error))
    except Exception:
        traceback.print_exc()
        return Outcome(failure="failed", error="the builder has a bug; the log has its traceback")


def check_versions(task: Task, manifest: Mapping[str, str]) -> None:
    """Refuse packages in other versions than were asked for.

    :raises Impossible: there are such
    """
    if wrong := [f"{name} is there in version {manifest.get(name, '(none)')}, not {version}"
                 for name, version in sorted(task.request.packages_versions.items()) if manifest.get(name) != version]:
        raise Impossible(*wrong)


def main() -> None:
    """Run the build in the directory that is the first argument."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    place = Path(sys.argv[1])
    outcome = run(place)
    if outcome.error:
        sys.stdout.write(f"{outcome.error}\n")
    half = place / f"{OUTCOME}~"
    half.write_bytes(msgspec.json.encode(outcome))
    half.rename(place / OUTCOME)


if __name__ == "__main__":
    main()
