"""A whole run, as `jalign train` makes one of a config."""

from jalign.run.run import Run


def train(options, console=None):
    return Run(options).fit(console=console)
