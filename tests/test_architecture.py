"""The shape of the code keeps within its limits. `python tests/architecture.py` prints the numbers
of every package, `python tests/architecture.py jalign/PART` what is over a limit there.
"""

import pytest

from tests.architecture import ROOT, count

PACKAGE = count(ROOT / "jalign")


# Public names and config keys that keep their spelling: symmetrised, rank_stabilised ..
BRITISH_LEFT = 10


def test_identifiers_are_the_fields_words():
    """Not what was found or said, but what it is: a match, rows, a step, a message."""
    assert not PACKAGE.banned, "\n".join(PACKAGE.banned)


def test_spelling_is_american():
    assert len(PACKAGE.british) <= BRITISH_LEFT, "\n".join(PACKAGE.british)


def test_functions_fit_on_a_screen_and_files_hold_one_idea():
    assert not PACKAGE.long(docstring=False), PACKAGE.long(docstring=False)
    sizes = sorted(PACKAGE.files.values())
    assert sizes[len(sizes) // 2] <= 120
    over = [f"{file} {lines}" for file, lines in PACKAGE.files.items() if lines > 400]
    assert not over, over


def test_public_functions_are_annotated_and_few_say_any():
    assert not PACKAGE.unannotated, PACKAGE.unannotated
    share = len(PACKAGE.with_any) / PACKAGE.public
    assert share <= 0.05, f"{share:.1%}: " + "\n".join(PACKAGE.with_any)


def test_comments_say_why_often_enough():
    assert 0.03 <= PACKAGE.comments / PACKAGE.lines <= 0.05


def test_the_command_line_is_thin():
    assert count(ROOT / "jalign" / "cli").lines <= 1600


@pytest.mark.parametrize(
    "code, words",
    [
        ("found = 1", ["found"]),
        ("def whole(made): pass", ["whole", "made"]),
        ("x.said = y", ["said"]),
        ("for chosen in rows: pass", ["chosen"]),
        ("for chosen, rejected in rows: pass", []),  # of a pair
        ("print(found)", []),  # another library's
    ],
)
def test_a_word_counts_where_the_code_defines_it(code, words, tmp_path):
    (tmp_path / "a.py").write_text(code)
    banned = count(tmp_path, root=tmp_path).banned
    assert sorted(x.split()[1] for x in banned) == sorted(words)
