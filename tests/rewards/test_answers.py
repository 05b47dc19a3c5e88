"""What the final answer of a text is, and the number in it."""

from fractions import Fraction

import pytest

from jalign.rewards.answers import final_answer, last_number


@pytest.mark.parametrize(
    "text, answer",
    [
        ("  it is 4 ", "it is 4"),
        (r"\boxed{3} no, \boxed{ 4 } apples", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{5} #### 6", "5"),
        (r"so \boxed{12", ""),  # cut by the limit: maybe it was 123
        ("2 + 2\n#### 4\n\n", "4"),
        ("#### Step 1\nadd\n#### Step 2\nso it is 9", "#### Step 1\nadd\n#### Step 2\nso it is 9"),
        ("####", ""),
        ("", ""),
    ],
)
def test_the_final_answer_is_the_last_box_or_behind_the_mark_or_the_text(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text, number",
    [
        ("3 apples and 5 pears", 5),
        ("-5", -5),
        ("so x=-5.", -5),
        ("10-5", 5),
        ("10 - 5", 5),
        ("(3)-2", 2),
        ("+7", 7),
        ("\u22127", -7),
        ("1,234,567.5 miles", Fraction("1234567.5")),
        ("1, 2, 3", 3),
        ("1,2345", 2345),
        ("12,34", 34),
        (r"1{,}000", 1000),
        (r"1\,000", 1000),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        (r"\boxed{-\dfrac{3}{4}}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"\frac{\sqrt{3}}{2}", 2),
        ("1 1/2", Fraction(1, 2)),
        ("50%", 50),
        ("$1,200.50", Fraction("1200.5")),
        (r"-\$5", -5),
        ("it costs $5$", 5),
        (".5", Fraction(1, 2)),
        ("2.", 2),
        ("1e-2", Fraction(1, 100)),
        ("2E3", 2000),
        ("#### 72", 72),
        ("7 steps\n#### -1,000", -1000),
        ("7 steps\n#### none", None),
        ("1/0", None),
        ("no number", None),
        ("", None),
        ("9" * 65, None),
        ("1e9999999", 9999999),  # no such exponent is read: it would be a number of ten megabytes
    ],
)
def test_the_last_number_is_read_exactly(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    "evil",
    ["9" * 200_000, "1," * 100_000, "1,111" * 40_000, "1/" * 100_000, "\\frac{" * 30_000,
     "\\boxed{" * 30_000, "-" * 200_000, "1e" * 100_000, "####" * 50_000, "." * 200_000,
     " " * 200_000, "1,111,111" * 20_000 + "x"],
)  # fmt: skip
def test_long_texts_that_a_model_may_write_are_read_in_linear_time(evil):
    assert isinstance(last_number(evil), Fraction | None)  # in quadratic time: minutes
