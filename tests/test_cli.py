"""Every verb of the command line, called as a user calls it: its words and its exit code."""

import gzip
import json

import jax
import pytest

from jalign.bench import measure
from jalign.config.read import read_config
from jalign.data.report import sentences
from jalign.kernels.devices import ACCELERATORS
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run import generate
from jalign.run.chat_prompts import as_chats, encode_prompts
from jalign.run.policy import tokenizer_of
from jalign.train.exit_code import ExitCode
from tests._cli import CHEAP, call
from tests.data.tiny_tokenizers import CHATML, byte_level
from tests.tiny_run import arguments, write_model, write_pairs

VERBS = (
    "train", "eval", "sample", "label", "revise", "prompts", "pipeline", "data", "export", "merge",
    "algorithms", "bench", "leaderboard",
)  # fmt: skip


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # so that no message is broken into lines
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # leave the user's cache alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, data, and a run of one step on them."""
    folder = tmp_path_factory.mktemp("cli")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        code, _ = call(["train", *config(folder, steps=1)])
    assert code == 0
    return folder


def config(folder, **options):
    return arguments(folder, **CHEAP | options)


def test_help_lists_every_command(capsys):
    code, said = call([], capsys)
    assert code == 0 and all(f"\n  {verb} " in said.out for verb in VERBS)


def test_help_says_every_exit_code(capsys):
    text = " ".join(call(["--help"], capsys)[1].out.split())
    assert all(f"{int(code)}: {code.meaning}" in text for code in ExitCode)


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_a_help_of_its_own(verb, capsys):
    code, said = call([verb, "--help"], capsys)
    assert code == 0 and said.err == ""
    assert f"jalign {verb}" in said.out


def test_the_help_of_train_explains_keys_in_words(capsys):
    _, said = call(["train", "--help"], capsys)
    for words in ("--optim.learning_rate", "at its peak", "--data.holdout", "--algorithm"):
        assert words in said.out


DPO = "train --algorithm.name dpo"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "no command 'trian'; did you mean 'train'?"),
        (
            "train --optim.learning_rte 1",
            "no option 'optim.learning_rte'; did you mean 'optim.learning_rate'?",
        ),
        ("eval --algorithm.nme dpo", "algorithm needs a name"),
        ("data --algorithm.name dpoo", "no algorithm 'dpoo'; did you mean 'dpo'?"),
        ("train nowhere.yaml", "cannot read config nowhere.yaml"),
        ("eval /no/run", "cannot read config /no/run: there is neither a run nor a config there"),
        (f"{DPO} --algorithm.bta 1", "dpo has no hyper-parameter 'bta'; did you mean 'beta'?"),
        (f"{DPO} --algorithm.beta -1", "beta must be > 0, got -1"),
        (f"{DPO} --optim.momentum 0.9", "momentum does not apply to adamw"),
        (f"{DPO} --optim.warmup_steps 9 --steps 5", "warmup_steps must be in 0..5"),
        (f"{DPO} --sample.every 5", "sample.every needs sample.prompts > 0"),
        ("train --algorithm.name bradley_terry --sample.prompts 1", "trains no language model"),
        (f"{DPO} --data.limit -1", "data.limit must be >= 0, got -1"),
        (f"{DPO} --data.flip tail --data.flip_share 1.0", "data.flip_share must be in [0, 1)"),
        ("train --algorithm.name sft --data.flip uniform", "data.flip inverts pairs and labels of"),
        (f"{DPO} --data.eval_split dev", "data.eval_split needs data.eval"),
    ],
)
def test_a_bad_config_exits_with_2_and_names_the_key(line, message, capsys):
    code, said = call(line.split(), capsys)
    assert code == 2
    assert said.err.startswith("jalign: error: ") and message in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.train": "no.jsonl"}, "no file no.jsonl"),
        ({"model.path": "./no_model"}, "no folder ./no_model"),
        ({"batch_size": 64}, "batch_size is 64, but there are only 40 training examples"),
        ({"data.holdout": 0, "eval_every": 1}, "eval_every needs held-out data"),
        ({"mesh.data": 3, "mesh.fsdp": 1}, "context=1, tensor=1 does not fit 8 devices"),
        ({"algorithm": "sft", "data.template": "hh"}, "template 'hh' cannot apply"),
    ],
)  # fmt: skip
def test_bad_input_exits_with_3_and_says_what_is_wrong(folder, options, message, capsys):
    code, said = call(["train", *config(folder, out="bad", **options)], capsys)
    assert code == 3 and message in said.err
    assert not (folder / "bad").exists()  # refused before anything was written


def test_a_line_that_is_not_json_is_named(folder, capsys):
    (folder / "broken.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{oops\n')
    code, said = call(["data", *config(folder, **{"data.train": folder / "broken.jsonl"})], capsys)
    assert code == 3 and "broken.jsonl, line 2: not JSON" in said.err


def test_a_directory_of_another_run_is_refused_with_2(folder, capsys):
    code, said = call(["train", *config(folder, steps=1, seed=1)], capsys)
    assert code == 2 and "seed: the checkpoint has 0, this run has 1" in said.err
    code, said = call(["train", *config(folder, **{"checkpoint.resume": "never"})], capsys)
    assert code == 2 and "already holds checkpoints (steps 1)" in said.err


def test_train_says_what_it_is_and_where_everything_is(folder, capsys):
    """The run is finished: going on with it trains nothing."""
    code, said = call(["train", *config(folder, steps=1)], capsys)
    assert code == 0
    for words in (
        "simpo on ",
        "attention",
        "40 of 40 rows kept",
        "done already: 1 of 1 steps",
        "checkpoint: ",
    ):
        assert words in said.out, words


def test_train_and_eval_print_everything_that_their_data_count(folder, capsys, tmp_path):
    good = {"prompt": "hello", "chosen": " fox", "rejected": " hello"}
    long = good | {"prompt": "fox " * 9 + "hello", "chosen": " fox hello" * 9, "mood": 3}
    odd = [good | {"chosen": ""}, good | {"chosen": None}, {"prompt": "x", "chosen": 7}]
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [good, long, *odd] * 4))
    numbers = {"max_prompt_len": 8, "max_response_len": 6, "bad_rows": "drop", "holdout": 0}
    options = {f"data.{name}": x for name, x in numbers.items()}
    options |= {"data.train": file, "data.eval": file, "steps": 1, "batch_size": 2}
    args = config(folder, out=tmp_path / "run", **options)
    run = read_config([str(x) for x in args])
    report = build_data.examples_of(run, tokenizer_of(run))[0].report
    lines = sentences(report)
    assert report.dropped and report.truncated_prompts and report.truncated_responses
    assert any("mood" in line for line in lines)
    code, said = call(["train", *args], capsys)
    assert code == 0 and [line for line in lines if f"data: {line}" not in said.out] == []
    code, said = call(["eval", tmp_path / "run"], capsys)
    assert code == 0 and [n for n in report.dropped if n not in said.out] == []


def test_eval_of_a_run_and_of_a_config_print_the_held_out_metrics(folder, capsys):
    code, said = call(["eval", folder / "run"], capsys)
    assert code == 0 and "step 1 of" in said.out and "8 held-out examples" in said.out
    assert "rewards/accuracies" in said.out
    code, said = call(["eval", folder / "run", "--seed", "1"], capsys)
    assert code == 3 and "leave out --seed." in said.err
    code, said = call(["eval", *config(folder, algorithm="sft", **{"data.holdout": 0})], capsys)
    assert code == 3 and "there are no held-out data" in said.err


def test_sample_continues_prompts_to_the_terminal_and_to_a_file(folder, capsys, tmp_path):
    code, said = call(["sample", folder / "model", "[b]hello[/i]", "--max_new_tokens", 3], capsys)
    assert code == 0 and said.out.startswith("[b]hello[/i]")  # not taken for markup
    out = tmp_path / "rows.jsonl"
    args = ["--out", out, "--max_new_tokens", 3, "--responses", 2]
    code, _ = call(
        ["sample", folder / "run", "hello", "the fox", *args, "--temperature", 1], capsys
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 0 and [r["prompt"] for r in rows] == ["hello", "the fox"]
    assert all(len(r["responses"]) == 2 for r in rows)
    code, said = call(["sample", folder / "model"], capsys)
    assert code == 3 and "give a PROMPT or --file" in said.err
    code, said = call(["sample", folder / "model", "a", "--responses", 2], capsys)
    assert code == 3 and "need a --temperature above 0" in said.err


def test_a_killed_sample_goes_on_with_the_next_prompts_and_writes_the_same(
    folder, capsys, tmp_path, monkeypatch
):
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "fox {i}"}}\n' for i in range(9)))
    args = ["--file", tmp_path / "prompts.jsonl", "--max_new_tokens", 3, "--temperature", 1]

    def sampled(name, *more):
        line = ["sample", folder / "model", *args, "--batch_size", 1, "--out", tmp_path / name]
        return call([*line, *more], capsys)

    assert sampled("whole.jsonl")[0] == 0
    calls, real = [], generate.generate_texts

    def dies(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the machine went away")
        return real(*args, **options)

    monkeypatch.setattr(generate, "generate_texts", dies)
    assert sampled("rows.jsonl")[0] == 3 and not (tmp_path / "rows.jsonl").exists()
    code, said = sampled("rows.jsonl", "--top_p", 0.9)
    assert code == 3 and "top_p: 1.0 then, 0.9 now" in said.err
    code, said = sampled("rows.jsonl")
    assert code == 0 and "resuming after 4 of 9" in said.out and len(calls) == 4
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_sample_answers_conversations_by_the_chat_template_with_one_bos(folder, capsys, tmp_path):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    row = json.dumps({"messages": talk})
    (tmp_path / "talk.jsonl").write_text(row + "\n")
    args = ["--file", tmp_path / "talk.jsonl", "--max_new_tokens", 3]
    code, said = call(["sample", folder / "model", *args], capsys)
    assert code == 3 and "the tokenizer has no chat template" in said.err
    out = tmp_path / "rows.jsonl"
    code, _ = call(["sample", folder / "model", *args, "--template", "hh", "--out", out], capsys)
    (found,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 0 and found["prompt"] == talk[:1] and len(found["responses"]) == 1
    tokenizer = byte_level(bos=True, chat_template="{{ bos_token }}" + CHATML)
    (ids,) = encode_prompts([{"prompt": talk[:1]}], tokenizer)
    text = "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == text  # one BOS


def test_a_typed_prompt_is_asked_by_the_chat_template_where_there_is_one(folder, capsys, tmp_path):
    line = ["sample", folder / "model", "hi", "--max_new_tokens", 2]
    code, said = call([*line, "--template", "hh"], capsys)
    assert code == 0 and "asked by the chat template; --chat false" in said.err
    assert said.out.startswith("hi\n-- response\n")
    code, said = call([*line, "--template", "hh", "--chat", "false"], capsys)
    assert code == 3 and "--template hh cannot apply" in said.err
    code, said = call([*line, "--chat"], capsys)
    assert code == 3 and "--chat needs a chat template" in said.err
    out = tmp_path / "rows.jsonl"
    assert call([*line, "--template", "hh", "--out", out])[0] == 0
    (row,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert row["prompt"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("chat", "typed", "from_file"),
    [(None, True, False), (True, True, True), (False, False, False)],
)
def test_texts_of_a_file_are_continued_unless_they_are_to_be_asked(chat, typed, from_file):
    tokenizer = byte_level(chat_template=CHATML)
    talk = [{"role": "user", "content": "a"}]
    asked = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": talk, "tools": []}]
    rows, note = as_chats(asked, 1, tokenizer, chat, None)
    asks = [isinstance(row["prompt"], list) for row in rows]
    assert asks == [typed, from_file, True] and rows[2] == asked[2]
    assert ("--chat" in note) == (chat is None)


def test_data_shows_counts_lengths_examples_and_batches(folder, capsys):
    code, said = call(["data", *config(folder)], capsys)
    assert code == 0
    for words in (
        "training data",
        "held-out data",
        "rows read",
        "response tokens",
        "bins of",
        "</s>",
    ):
        assert words in said.out, words


def test_data_ranks_the_labels_of_a_run_and_of_other_data_by_its_margins(folder, capsys, tmp_path):
    text = gzip.decompress((folder / "pairs.jsonl.gz").read_bytes()).decode()
    pairs = [json.loads(line) for line in text.splitlines()]
    for i in range(0, 48, 6):  # who is wrong about each of them
        swapped = {"chosen": pairs[i]["rejected"], "rejected": pairs[i]["chosen"]}
        pairs[i] |= swapped
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(x) + "\n" for x in pairs))
    out = tmp_path / "suspects.jsonl"
    words = ["data", "--suspects", folder / "run", "--out", out]
    code, said = call([*map(str, words), "--rows", str(tmp_path / "wrong.jsonl")], capsys)
    assert code == 0, said.err
    for text in ("ordered against the label:", "(RE-PO)", "Hölder", "48 rows, the most doubtful"):
        assert text in said.out
    ranked = [json.loads(x) for x in out.read_text().splitlines()]
    assert [x["log_odds"] for x in ranked] == sorted(x["log_odds"] for x in ranked)
    # one step has learned that greetings are preferred
    assert {x["row"] for x in ranked[:8]} == set(range(0, 48, 6))
    assert ranked[0]["chosen"] == pairs[ranked[0]["row"]]["chosen"]
    code, said = call(["data", "--suspects", str(folder / "nowhere")], capsys)
    assert code != 0 and "nowhere" in said.err


def test_export_writes_a_folder_that_sample_reads(folder, capsys, tmp_path):
    code, _ = call(["export", folder / "run", tmp_path / "hf", "--dtype", "bfloat16"], capsys)
    assert code == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "hf" / "tokenizer.json").exists()
    code, said = call(["export", folder / "run", tmp_path / "a", "--adapter"], capsys)
    assert code == 3 and "there is no adapter" in said.err
    code, said = call(["export", folder / "model", tmp_path / "b"], capsys)
    assert code == 3 and "is no folder of a run" in said.err
    code, said = call(["export", folder / "run", tmp_path / "c", "--step", 7], capsys)
    assert code == 3 and "has no checkpoint of step 7; saved steps: 1" in said.err


def test_a_run_is_read_where_its_mesh_does_not_fit(folder, tmp_path):
    """Trained on a pod, exported on a laptop."""
    (tmp_path / "checkpoints").mkdir()
    saved = json.loads((folder / "run" / "config.json").read_text())
    for data, read_as in ((16, 1), (8, 8)):
        saved["mesh"]["data"] = data
        (tmp_path / "config.json").write_text(json.dumps(saved))
        assert runs.options_of(str(tmp_path)).mesh.data == read_as


def test_algorithms_prints_the_catalogue_and_one_row(capsys):
    _, said = call(["algorithms"], capsys)
    assert "2305.18290" in said.out and "bradley_terry" in said.out
    _, said = call(["algorithms", "simpo"], capsys)
    assert "gamma" in said.out and "from jalign.losses import simpo" in said.out
    code, said = call(["algorithms", "simpoo"], capsys)
    assert code != 0 and "did you mean 'simpo'" in said.err


def test_bench_head_prints_a_table_and_json(capsys):
    sizes = {"--tokens": 64, "--width": 16, "--vocabulary": 512, "--repeats": 1}
    code, said = call(["bench", "head", *(x for pair in sizes.items() for x in pair)], capsys)
    assert code == 0 and json.loads(said.out.splitlines()[-1])
    code, said = call(["bench", "hed"], capsys)
    assert code == 3 and "did you mean 'head'" in said.err


def test_bench_step_measures_a_few_steps(capsys):
    sizes = {"--pairs": 2, "--len": 32, "--prompt": 16, "--steps": 2, "--warmup": 1}
    args = ["bench", "step", "--algorithm", "simpo", *(x for pair in sizes.items() for x in pair)]
    code, said = call(args, capsys)
    assert jax.sharding.get_abstract_mesh().empty  # a benchmark leaves no mesh in scope
    assert code == 0 and json.loads(said.out.splitlines()[-1])["steps"] == 2


def test_bench_step_measures_the_step_of_a_config_without_its_weights_and_data(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "algorithm: {name: dpo}\nmodel: {path: embedded, lora: {rank: 2}}\n"
        "data: {train: nowhere.jsonl, max_prompt_len: 8, max_response_len: 8}\n"
        "batch_size: 8\nmesh: {fsdp: -1}\noptim: {warmup_steps: 50}\n"
    )
    args = ["bench", "step", "--config", str(config), "--random", "--steps", "1", "--warmup", "0"]
    code, said = call([*args, "--", "--model.depth", "1"], capsys)
    assert code == 0
    found = json.loads(said.out.splitlines()[-1])
    assert found["tokens_per_second"] > 0 and found["tflop"] > 0 and "mfu" not in found  # a CPU
    code, said = call(["bench", "step", "--random"], capsys)
    assert code == 3 and "--random needs --config" in said.err


def test_utilization_is_arithmetic_over_what_the_device_could_do(monkeypatch):
    card = next(a for a in ACCELERATORS.values() if a.kind == "NVIDIA H200")
    monkeypatch.setattr(measure, "known", lambda kind: card)
    found = measure.utilization(989e12 * 8 * 0.25, seconds=0.5)  # 8 fake devices
    assert found == {"tflop": 1978.0, "mfu": 0.5}
