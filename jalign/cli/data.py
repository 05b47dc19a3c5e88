"""`jalign data CONFIG`: the data as the model will see it."""

from rich.console import Console

from jalign.cli import build
from jalign.config import Config
from jalign.data import report
from jalign.models import hub


def show(config: Config, console: Console) -> None:
    """Counts, lengths, what was dropped and why, a few examples with scored tokens coloured, and
    how batches are cut.
    """
    tokenizer = build.tokenizer_of(config)
    train, held = build.examples_of(config, tokenizer)
    for name, examples in (("training data", train), ("held-out data", held)):
        if examples is not None:
            console.rule(name)
            report.render(examples, tokenizer, console)
    console.rule("batches")
    spec = hub.spec_of(build.model_path(config.model.path))
    for line in build.source_of(config, train, build.mesh_of(config), spec).batches.plan.describe():
        console.print(line, highlight=False)
