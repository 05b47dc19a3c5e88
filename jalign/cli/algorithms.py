"""`jalign algorithms [NAME]`: the catalogue as a table, or one row with its hyper-parameters."""

from collections.abc import Sequence
from functools import partial

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.algorithms import ALGORITHMS, get
from jalign.algorithms.elsewhere import elsewhere
from jalign.cli.algorithm_text import LEGEND, header, line, show_row
from jalign.config.read import parsed
from jalign.taxonomy import markdown

_DESCRIPTION = """The catalogue, one line per algorithm; or one algorithm with its description,
hyper-parameters and loss; or the lines that contain a word. jalign algorithms simpo,
jalign algorithms file.py:row (one of your own), jalign algorithms re_po+simpo (a row with its loss
made robust), jalign algorithms list (those that learn from
lists), jalign algorithms oaif (a method known under another name, and where it is)."""


def algorithms(args: Sequence[str], console: Console) -> None:
    """Print lines of the catalogue, or what is known about single algorithms."""
    parser = ArgumentParser(prog="jalign algorithms", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("words", nargs="*", help="names of algorithms, or words to search for")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    options = parsed(parser, args)
    if options.markdown:
        # not by rich, which would wrap the table's lines
        print(markdown())
        return
    words = options.words
    # a name before a search: dpo is a row, and a part of many names
    if any(word in ALGORITHMS or {":", "+"} & set(word) for word in words):
        for word in words:
            show_row(get(word), console)
        return
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    lines = [line(row) for row in ALGORITHMS.values()]
    matches = [x for x in lines if all(word.lower() in x.lower() for word in words)]
    other_names = {word: where for word in words if (where := elsewhere(word))}
    if not matches and not other_names:
        get(words[0])  # raises, and names the nearest
    for text in (header(), *matches) if matches else ():
        say(text)
    for word, where in other_names.items() if not matches else ():
        say(f"{word} is here: {where}")
    if not words:
        say(f"\n{LEGEND}")
