"""What a reward is, as digits: they follow its code and its texts, and nothing else."""

import os
from functools import partial, wraps

from jalign.rewards.identity import function_digest, template_digests

CODE = "def f(prompts, responses): return [{sign}float(len(r)) for r in responses]\n"


def test_a_function_of_a_file_is_known_by_the_text_of_the_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(CODE.format(sign=""))
    before = function_digest(f"{file}:f")
    os.utime(file, ns=(1, 1))  # another date of the same text
    assert function_digest(f"{file}:f") == before
    (tmp_path / "copy.py").write_text(CODE.format(sign=""))
    assert function_digest(f"{tmp_path}/copy.py:f") == before
    file.write_text(CODE.format(sign="-"))
    assert function_digest(f"{file}:f") != before


def test_a_function_that_wraps_one_of_another_file_is_known_by_both(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "inner_of_wrapped.py").write_text(CODE.format(sign=""))
    (tmp_path / "outer.py").write_text("from inner_of_wrapped import f\n")
    before = function_digest(f"{tmp_path}/outer.py:f")
    (tmp_path / "inner_of_wrapped.py").write_text(CODE.format(sign="-"))
    assert function_digest(f"{tmp_path}/outer.py:f") != before


def test_rules_modules_and_callables_have_digests_too():
    def length(prompts, responses, scale):
        return [len(r) * scale for r in responses]

    @wraps(length)
    def wrapped(*given):
        return length(*given)

    class Scorer:
        def __call__(self, prompts, responses):
            return [0.0] * len(responses)

    assert function_digest("exact_match") == "jalign:exact_match"
    module = function_digest("jalign.rewards.rules:exact_match")
    here = function_digest("length", length)
    assert len(module) == len(here) == 16 and module != here
    for fn in (partial(length, scale=2.0), wrapped, Scorer()):
        assert function_digest("mine", fn) == here
    assert function_digest("len", len) == "unknown:len"


def test_templates_of_ones_own_count_and_those_that_ship_do_not(tmp_path):
    (tmp_path / "ask.txt").write_text("{prompt}: {response}")
    options = {"template": f"{tmp_path}/ask.txt", "instructions": "Be strict."}
    (before,) = template_digests(options).values()
    (tmp_path / "ask.txt").write_text("{prompt}? {response}")
    assert template_digests(options)["template"] != before
    assert template_digests({"template": "rate", "samples": 3}) == {}
