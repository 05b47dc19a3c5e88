"""From the folders of runs to a page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup

from jalign import __version__, store
from jalign.report import comparison_page, run_page
from jalign.report.record import RunRecord, load_all
from jalign.report.svg import line_chart

FILE = "report.html"


def write(folders: Sequence[str], path: str | None = None) -> str:
    """Write the report of a run, or the comparison of several.

    Args:
      folders: of runs, on disk or in a bucket.
      path: of the page; None: report.html in the folder of the run, or comparison.html here.

    Returns:
      The path of the page.

    Raises:
      ValueError: no run is named, one twice, or one is no run.
    """
    runs = load_all(folders)
    if path is None:
        path = str(store.as_path(folders[0]) / FILE) if len(runs) == 1 else "comparison.html"
    text = html(runs)
    store.write(store.as_path(path), lambda file: file.write(text.encode()))
    return path


def html(runs: Sequence[RunRecord]) -> str:
    """The page of a run, or of a comparison.

    Raises:
      ValueError: there is no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    several = len(runs) > 1
    context = comparison_page.context(runs) if several else run_page.context(runs[0])
    return render("comparison.html" if several else "run.html", several=several, **context)


def render(template: str, **context: object) -> str:
    """Fill a template of jalign/report/page; texts are escaped, `Markup` is not."""
    # by importlib: the package may be in a zip file
    pages = files("jalign.report") / "page"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (pages / name).read_text("utf-8")),
        autoescape=True,
        # a misspelled name is an error, not an empty place in the page
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "style": Markup((pages / "style.css").read_text("utf-8")),
        "script": Markup((pages / "script.js").read_text("utf-8")),
        "svg": line_chart,
        "version": __version__,
    }
    return environment.get_template(template).render(**context)
