"""Fills in templates (Jinja2), so that an unknown name is a mistake with its file and line, never an empty text.

The same variables give the same text on every machine: what draws random numbers is not there.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from pdimage.errors import Mistake, Mistakes
from pdimage.yamlsource import Place


def render_file(source: Path, variables: Mapping[str, Any]) -> str:
    """Return the template SOURCE with VARIABLES filled in; it may include others of its directory.

    :raises Mistakes: with the line of the template
    """
    environment = _environment(source.parent)
    try:
        return environment.get_template(source.name).render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise Mistakes([Mistake(error.filename or str(source), error.lineno, "", _text(error))]) from error
    except (jinja2.TemplateError, UnicodeDecodeError, OSError, TypeError, ValueError, ArithmeticError,
            LookupError, AttributeError) as error:
        file, line = _template_line(error, source)
        raise Mistakes([Mistake(file, line, "", _text(error))]) from error


def render_text(text: str, path: str, place: Place, variables: Mapping[str, Any]) -> str:
    """Return a text of the description, at PATH and PLACE, with VARIABLES filled in.

    :raises Mistakes: it is no template, or a name in it is unknown
    """
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    try:
        return _environment(None).from_string(text).render(variables)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise Mistakes([place.mistake(path, _text(error))]) from error


def _environment(directory: Path | None) -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(directory) if directory else None
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
                                     autoescape=False)
    environment.filters.pop("random")
    environment.globals.pop("lipsum")
    return environment


def _text(error: Exception) -> str:
    if isinstance(error, jinja2.UndefinedError):
        return f"the template needs what is not there: {error.message}; set it in variables, or correct the name"
    if isinstance(error, jinja2.TemplateNotFound):
        return f"the template includes {error.name}, which is not beside it"
    return f"the template is wrong: {error}"


def _template_line(error: Exception, source: Path) -> tuple[str, int]:
    """Return the template and the line in it where ERROR arose: Jinja2 puts them into the traceback."""
    inside = [frame for frame in traceback.extract_tb(error.__traceback__)
              if Path(frame.filename).is_relative_to(source.parent) and not frame.filename.endswith(".py")]
    return (inside[-1].filename, inside[-1].lineno or 0) if inside else (str(source), 0)
