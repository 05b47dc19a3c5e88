"""A run, or several, as one HTML page that needs no server and no network."""

from jalign.report.record import RunRecord, load, load_all
from jalign.report.write import html, write

__all__ = ["RunRecord", "html", "load", "load_all", "write"]
