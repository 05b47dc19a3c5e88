"""Templates that write the date write that of the run."""

import re

import pytest

from jalign.data.chat import Template
from jalign.data.clock import CLOCK
from tests.data.tiny_tokenizers import CHATML, byte_level

DATED = '{{ "Today: " + strftime_now("%d %b %Y %H:%M") }}' + CHATML
# as Llama 3.2's
OPTIONAL = (
    '{%- if not date_string is defined %}{%- set form = "%d %b %Y" %}'
    "{%- set date_string = strftime_now(form) %}{%- endif %}{{ date_string }}" + CHATML
)


@pytest.fixture(autouse=True)
def running():
    yield
    CLOCK.fix(None)


def rendered(source):
    template = Template.of(byte_level(), source)
    CLOCK.asked = False
    return template.render([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("source", "date"), [(DATED, "02 Jan 2026 03:04"), (OPTIONAL, "02 Jan 2026")]
)
def test_a_fixed_clock_gives_the_same_text_at_any_time(source, date):
    CLOCK.fix("2026-01-02T03:04")
    assert date in rendered(source) and CLOCK.asked
    CLOCK.fix(None)
    assert date not in rendered(source) and re.search(r"\d\d \w\w\w 2\d\d\d", rendered(source))


def test_templates_without_a_date_do_not_ask():
    CLOCK.fix("2026-01-02")
    assert "2026" not in rendered(CHATML) and not CLOCK.asked
