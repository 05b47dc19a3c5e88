import io
import subprocess
import sys
from dataclasses import fields

from rich.console import Console

from jalign.data.examples import Examples, Report
from jalign.data.records import Record
from jalign.data.report import example_text, render, sentences
from jalign.data.tokenize import tokenize

RECORDS = [Record("how are you", [" hello world", ""], {})] + [
    Record("how are you " * n, [" hello world", " the quick fox"], {"margin": 1.0 * n})
    for n in (1, 9)
]


def shown(examples, tokenizer, **options):
    console = Console(width=100, record=True, file=io.StringIO())
    render(examples, tokenizer, console, **options)
    return console.export_text()


def test_the_report_shows_counts_drops_histograms_and_examples(with_bos):
    records = [r._replace(extras={"margin": 1.0}) for r in RECORDS]
    text = shown(tokenize(records, with_bos), with_bos, n=2)
    for part in ("rows read", "dropped: empty response", "prompt tokens: median", "####"):
        assert part in text
    assert "example 0 (margin 1., row 0)" in text and "example 1" in text
    assert "<s>how are you" in text and " hello world</s>" in text


def test_scored_tokens_and_special_ones_have_their_colours(with_bos):
    example = tokenize(RECORDS[1:], with_bos)[0]
    styles = {str(s.style) for s in example_text(example, with_bos).spans}
    assert {"dim", "green", "green reverse", "dim reverse"} <= styles and "yellow" not in styles


def test_no_examples_are_reported_too(plain):
    assert "examples kept" in shown(Examples.from_list([]), plain)


def test_attributes_and_warnings_are_shown(plain):
    report = Report(attributes=("good", "long"), warnings=["look here", "and there"])
    text = shown(Examples.from_list([], report), plain)
    for part in ("attributes", "good, long", "warnings", "look here", "and there"):
        assert part in text


def test_everything_that_a_report_holds_is_said_before_training():
    counts = [f for f in fields(Report) if isinstance(getattr(Report(), f.name), int)]
    values = {f.name: 1001 + i for i, f in enumerate(counts)}
    words = {"kind": "pairs", "explanation": "because", "sources": ("here",)}
    words |= {"annotators": ("anna", "bob")}
    words |= {"attributes": ("good",), "warnings": ["careful"], "dropped": {"bad row: no": 7}}
    text = "\n".join(sentences(Report(**values, **words)))
    for value in values.values():
        assert f"{value:,}" in text
    parts = ("because", "sources: here", "attributes: good", "annotators: 2", "warning: careful")
    for part in (*parts, "7 bad row"):
        assert part in text
    assert set(values) | set(words) == {f.name for f in fields(Report)} - {"locations"}
    assert sentences(Report(kind="pairs")) == ["pairs", "0 of 0 rows kept, dropped: none"]


def test_the_responses_of_a_pair_have_names(with_bos):
    examples = tokenize([r._replace(responses=["a", "b"]) for r in RECORDS[1:2]], with_bos)
    examples.report.kind = "pairs"
    text = shown(examples, with_bos)
    assert "-- chosen, 2 tokens" in text and "-- rejected, 2 tokens" in text
    label = RECORDS[1]._replace(responses=["a"], extras={"label": 0.0})
    example = tokenize([label], with_bos)[0]
    assert "-- undesirable, 2" in str(example_text(example, with_bos, kind="binary"))
    assert "-- response, 2" in str(example_text(example, with_bos))


def test_data_never_imports_jax():
    # packing and pipeline know the layout of a batch, which is a JAX type
    names = ["kinds", "records", "joint", "select", "convert", "write", "sources", "chat"]
    names += ["tokenize", "examples", "report"]
    code = (
        "".join(f"import jalign.data.{n}\n" for n in names)
        + "import sys; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
