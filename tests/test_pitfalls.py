"""Mistakes that other alignment libraries made, each with the test that jalign does not make it.

What is tested elsewhere already, by the number of the mistake:

1 local denominators: train/test_step.py 1x8_and_8x1..., eight_devices_take_the_same_step...
3 off by one: models/test_score.py scores_are_those_of_the_models_logits..., data/test_packing.py
  every_scored_token_stands_once...; here for the lengths that losses divide by
4 prompt masks: data/test_tokenize.py bpe_never_merges_across_the_border; here after truncation
5 whitening, GAE, reward placement: test_advantages.py gae_is_..._passes_over_holes,
  the_score_stands_at_the_last_scored_token..., whiten_has_mean_zero...over_scored_tokens
6 length normalised twice: losses/test_by_hand.py of ipo, simpo, orpo (value and gradient); here
  for the divisors of policy losses
7 packing: models/test_decoder.py a_flat_stream_with_a_shared_prompt_equals_padded_rows,
  test_runs.py padded_rows_give_the_losses_and_gradients_of_the_flat_layout
8 batch-coupled losses: train/test_step.py 1x8_and_8x1... and eight_devices... with kto
9, 10, 11 BOS, EOS, truncation: data/test_tokenize.py bos_*, eos_*, pad_equal_to_eos...,
  a_response_cut_to_nothing..., a_prompt_cut_at_the_front...
12 sampling temperature: rollout/test_draw.py temperature_divides_logits_before_the_softmax,
  rollout/test_sampler.py logps_are_those_of_the_distribution_sampled_from,
  test_online.py the_trainer_gives_sampled_tokens_the_log_probs_they_were_sampled_with
13, 16 estimators of KL, clipping on both signs, CISPO: losses/test_policy.py k1_as_a_loss_has...,
  ppo_clip_value_and_gradient_on_both_signs..., cispo_reads_its_bound_as_a_ratio...
14 step 0 is log 2: test_runs.py dpo_starts_at_log_2..., losses/test_by_hand.py dpo_is_log_2...
15 adapters as their own reference: test_runs.py
  adapters_are_exported_for_peft_and_taken_up_again...
17 old log-probs: test_online.py on_policy_the_ratio_is_one_and_in_later_epochs_it_is_not
18 group deviation: test_advantages.py group_normalized_divides_by..., a_missing_score_leaves...;
  test_online.py a_response_without_a_reward_is_counted...
19 KTO: losses/test_by_hand.py kto_*, data/test_pipeline.py a_mismatched_response_*, test_config.py
  (batch 1); ORPO: losses/test_by_hand.py orpo_stays_finite_where_the_model_is_certain
20 options: test_contract.py every_hyperparameter_matters, train/test_optim.py
  an_option_that_cannot_apply..., models/test_families.py
  a_changed_config_changes_the_logits; test_every_key_is_read.py every_key_is_read_by_the_code...
22 cached reference: test_runs.py cached_reference_log_probs_change_nothing; here for their key
26 resume: test_runs.py a_run_cut_in_two..., data/test_pipeline.py a_restart_continues...,
  train/test_resume_rules.py; here for what stands between two log lines
27 other data, tokenizer, base: test_runs.py what_must_not_change..., another_base_model...; here
  for the schedule and the architecture
"""

import ast
import json
import re
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jalign
from jalign import config, losses
from jalign.algorithms import ALGORITHMS, get
from jalign.bench.workloads import TINY_LLAMA
from jalign.checkpoint.resume import ResumeError, check_identity
from jalign.config.build import options_of
from jalign.core import Frozen, Mean
from jalign.data.batch_spec import BatchSpec
from jalign.data.convert import to_records
from jalign.data.pipeline import Batches
from jalign.data.tokenize import tokenize
from jalign.layout import MicroBatches
from jalign.log import RunLog
from jalign.models import hub
from jalign.models.adapters.lora import adapters, add_lora, trainable_filter, without_dropout
from jalign.models.functional import functional
from jalign.parallel.mesh import make_mesh
from jalign.run import data as build_data
from jalign.run.identity import NOTES, identity_of, unsaid
from jalign.run.rewards import identity_of as identity_of_reward
from jalign.run.setup import Inputs
from jalign.train.hooks import Evaluate, Evaluations, Metrics
from jalign.train.loop import StepInfo
from jalign.train.online import Online
from jalign.train.reference import reference_columns
from jalign.train.state import init_state
from jalign.train.step import create_state, make_eval_step, make_train_step
from tests.data.tiny_tokenizers import byte_level
from tests.tiny_run import WORDS
from tests.train._toy import B, apply, batch, params, responses, run

PACKAGE = Path(jalign.__file__).parent


TESTS = Path(__file__).parent


def test_every_test_that_the_index_above_names_exists():
    file, missing = None, []
    for word in re.split(r"[\s,;:]+", re.sub(r"\*?\.\.\.", "*", __doc__)):
        if word.endswith(".py"):
            file = TESTS / word
            assert file.exists(), word
        elif word.count("_") >= 2 or word.endswith("_*"):
            names = re.findall(r"def test_(\w+)", file.read_text())
            if not any(fnmatch(name, word.rstrip("*.") + "*") for name in names):
                missing.append(f"{file.name} {word}")
    assert not missing, "\n".join(missing)


# ---- normalization and masks


def test_2_places_without_an_example_are_not_in_the_denominator():
    """trl 6369: masked sequences counted. Half a batch alone has the loss of half a batch."""
    whole = batch(k=1)
    half = jax.tree.map(lambda x: x[:4], whole)
    whole.mask[4:] = False
    for name in ("sft", "dpo", "orpo", "kto"):
        row = get(name)
        if responses(row) != 1:
            whole = batch(k=responses(row))
            half = jax.tree.map(lambda x: x[:4], whole)
            whole.mask[4:] = False
        _, a = run(row, whole)
        _, b = run(row, half)
        for metric in b:
            np.testing.assert_allclose(a[metric], b[metric], rtol=1e-5, err_msg=f"{name} {metric}")


@pytest.fixture(scope="module")
def examples():
    """Pairs of ragged lengths whose prompts are cut at the front and some responses at the end."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(12):
        prompt, a, b = (" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 9, 3))
        rows.append({"prompt": prompt, "chosen": f" {a} a", "rejected": f" {b} b"})
    records, report = to_records(rows, "pairs")
    tokenizer = byte_level(bos=True)
    limits = {"max_prompt_len": 5, "max_response_len": 9, "keep_eos": True}
    made = tokenize(records, tokenizer, **limits, report=report)
    assert report.truncated_prompts and report.truncated_responses
    return made


@pytest.fixture(params=["flat", "padded"])
def parts(request, examples):
    made = Batches(examples, BatchSpec(len(examples), layout=request.param, multiple=8))
    return [p for b in made.eval_batches() for p in b]


def in_order(parts, per_part):
    """[examples] by example number, from `per_part(batch of one bin) -> [B]`."""
    found = {}
    for part in parts:
        for i in range(part.count):
            batch = part.micro_batch(i)
            index, values = batch.extras["index"], per_part(batch)
            found |= {int(n): v for n, v in zip(index, values, strict=True) if n >= 0}
    return [found[n] for n in range(len(found))]


def test_3_the_length_that_normalises_is_the_number_of_log_probs_summed(parts, examples):
    """trl 6879, open-instruct 1549. Every token has log-prob -2; unscored places hold NaN."""
    view = get("ipo").format.view

    def means(b):
        out = {"token_logps": jnp.where(b.mask, -2.0, jnp.nan)}
        named = view(out, b)
        return zip(
            named["chosen_logps"] / named["chosen_len"],
            named["rejected_logps"] / named["rejected_len"],
            named["chosen_len"],
            named["rejected_len"],
            strict=True,
        )

    for (chosen, rejected, *lengths), example in zip(in_order(parts, means), examples, strict=True):
        assert (chosen, rejected) == (-2.0, -2.0)
        assert lengths == [len(r) for r in example.responses]  # the EOS included


def test_4_each_side_has_its_own_mask_after_truncation_too(parts, examples):
    """OpenRLHF 294, verl 601: what is scored is each response, whole, and nothing of the prompt."""

    def scored(b):
        layout = b.layout
        ids = np.take_along_axis(layout.tokens, layout.at, -1)
        if layout.rows is None:  # a stream for each response
            by_token = np.take_along_axis(ids[:, None], layout.slots.reshape(len(ids), 1, -1), -1)
        else:
            flat = layout.slots.reshape(len(ids), -1)
            by_token = np.take_along_axis(ids, flat, -1)
        by_token = by_token.reshape(b.mask.shape)
        return [
            [t[m].tolist() for t, m in zip(*x, strict=True)]
            for x in zip(by_token, b.mask, strict=True)
        ]

    for found, example in zip(in_order(parts, scored), examples, strict=True):
        assert found == [r.tolist() for r in example.responses]


def test_5_the_reward_is_read_at_the_eos_of_each_response(parts, examples):
    """trl 6952: read at a wrong token. The score of a token is its id here."""
    view = get("bradley_terry").format.view
    eos = byte_level(bos=True).eos_token_id

    def rewards(b):
        ids = np.take_along_axis(b.layout.tokens, b.layout.at, -1)
        slots = b.layout.slots.reshape(len(ids), -1)
        by_token = np.take_along_axis(ids, slots, -1).reshape(b.mask.shape)
        named = view({"scores": jnp.asarray(by_token, jnp.float32)}, b)
        return zip(named["chosen_scores"], named["rejected_scores"], strict=True)

    assert all(pair == (eos, eos) for pair in in_order(parts, rewards))


# ---- ratios and KL


def test_14_there_is_no_dropout_in_the_reference_nor_in_evaluation():
    """trl 3234. Only the policy's own pass in a training step is given a key."""
    keys = []

    def spy(params, base, layout, outputs, key=None):
        keys.append((base, key is not None))
        return apply(params, base, layout, outputs)

    optimizer, row = optax.sgd(0.1), get("dpo")
    state = create_state(params(), optimizer, row, jax.random.key(0))
    make_train_step(row, spy, optimizer)(state, Frozen(None, params(1)), batch())
    assert [drops for _, drops in keys] == [True, False]
    keys.clear()
    make_eval_step(row, spy)(params(), Frozen(None, params(1)), {}, batch())
    assert keys and not any(drops for _, drops in keys)


def test_14_adapters_have_no_dropout_where_policy_and_reference_are_compared():
    with pytest.raises(ValueError, match=r"model.lora.dropout does not apply to dpo"):
        replace(DPO, model=config.ModelConfig(lora=config.LoraConfig(dropout=0.1))).check()
    model = add_lora(tiny_decoder(), rank=2, alpha=4.0, dropout=0.5, rngs=nnx.Rngs(0))
    quiet = without_dropout(model)
    assert {x.dropout for x in adapters(quiet).values()} == {0.0}
    assert {x.dropout for x in adapters(model).values()} == {0.5}  # a copy


# ---- options and twins


def test_21_each_loss_exists_once_and_is_the_one_that_the_catalogue_runs():
    """liger 1082, trl 7063: two implementations of one loss drift apart."""
    made = [losses.re_po(losses.dpo)]
    for row in ALGORITHMS.values():
        for fn in (row.loss, *(aux.loss for aux in row.aux_losses.values())):
            # or made of one of them by a function of losses
            assert fn in made or getattr(losses, fn.__name__) is fn
    names = [
        node.name
        for file in (PACKAGE / "losses").rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert len(names) == len(set(names))


class OneBatch:
    """A source of one batch, in an order of its own."""

    def __init__(self, order):
        whole = batch(len(order))
        self.batches = SimpleNamespace(examples=range(len(order)))
        shuffled = jax.tree.map(lambda x: jnp.asarray(x[order]), whole)
        self.data = shuffled._replace(extras={"index": jnp.asarray(order)})

    def eval_batches(self):
        yield (MicroBatches(jax.tree.map(lambda x: x[None], self.data), np.int32(1)),)


def test_22_cached_reference_log_probs_are_by_example_and_never_stale(tmp_path):
    """trl 6291, 5714, 7083: reordered, or those of other data, tokenizer or reference."""
    said = []

    def columns(source, **key):
        ref = Frozen(None, params(key["reference"]))
        return reference_columns(
            source, get("dpo"), apply, ref, folder=tmp_path, key=key, say=said.append
        )

    key = {"data": "d", "tokenizer": "t", "reference": 1}
    straight = columns(OneBatch(np.arange(8)), **key)
    again = columns(OneBatch(np.arange(8)), **key)
    assert "computed" in said[0] and "read from" in said[1]
    for name in ("data", "tokenizer"):  # the same numbers, as only their names differ here
        turned = columns(OneBatch(np.arange(8)[::-1]), **key | {name: "other"})
        assert "computed" in said[-1]
        for column in straight:
            np.testing.assert_array_equal(straight[column], again[column])
            np.testing.assert_allclose(straight[column], turned[column], rtol=1e-6)
    other = columns(OneBatch(np.arange(8)), **key | {"reference": 2})
    assert (
        "computed" in said[-1] and (other["ref_chosen_logps"] != straight["ref_chosen_logps"]).all()
    )


# ---- numbers


def test_23_masters_are_float32_so_that_small_updates_are_not_swallowed():
    """AReaL 1634. In bfloat16 1 - 1e-4 is 1."""
    row, optimizer = get("sft"), optax.sgd(1e-4)
    mesh = make_mesh(fsdp=-1)
    here = jax.NamedSharding(mesh, jax.P())
    loaded = jax.device_put({"w": jnp.ones(4, jnp.bfloat16)}, here)
    state = init_state(mesh, loaded, optimizer, row, seed=0)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    updates, _ = optimizer.update({"w": jnp.ones(4)}, state.opt_state, state.params)
    moved = optax.apply_updates(state.params, updates)
    np.testing.assert_allclose(moved["w"], 1 - 1e-4, rtol=1e-7)


def undesirable_only(whole):
    return whole._replace(extras={"label": np.zeros(B, bool)})


def test_24_a_mean_over_nothing_is_not_a_zero_and_spoils_no_other_mean(tmp_path):
    _, metrics = run(get("kto"), undesirable_only(batch()))
    assert np.isnan(metrics["rewards/chosen"]) and np.isfinite(metrics["rewards/rejected"])
    log = RunLog(tmp_path, steps=2, start=0)
    hook = hook_of(log, every=2)
    for step, chosen in ((1, 3.0), (2, float("nan"))):
        hook(moment(step, {"rewards/chosen": chosen, "loss": 1.0}))
    log.close()
    assert json.loads(log.path.read_text())["rewards/chosen"] == 3.0


def test_24_what_stands_in_padding_never_reaches_a_metric():
    for garbage in (np.nan, np.inf, 1e30):
        mean = Mean.of(jnp.array([1.0, garbage, 3.0]), jnp.array([True, False, True]))
        assert float(mean.value) == 2.0


def tiny_decoder():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    return hub.init(TINY_LLAMA | small, key=jax.random.key(0))


def test_25_no_weight_is_a_constant_of_the_compiled_step():
    """mlx-lm-lora 50: adapters and references are arguments, never closures."""
    model = add_lora(tiny_decoder(), rank=2, alpha=4.0, rngs=nnx.Rngs(0))
    scorer, trained, base = functional(model, trainable_filter(model))
    optimizer, row = optax.sgd(0.1), get("dpo")
    state = create_state(trained, optimizer, row, jax.random.key(0))
    records, report = to_records([{"prompt": "a", "chosen": " b", "rejected": " c"}] * 2, "pairs")
    tokens = tokenize(records, byte_level(bos=True), report=report)
    (part,) = Batches(tokens, BatchSpec(2, multiple=8)).batch(0)
    part.batch.layout.tokens[:] %= 64
    step = make_train_step(row, scorer, optimizer)
    traced = jax.make_jaxpr(step)(state, Frozen(base, trained), part)
    held = [np.shape(c) for c in traced.consts]
    assert all(np.prod(shape) <= 64 for shape in held), held  # rotary frequencies, at most


# ---- state


def hook_of(log, *, every, pending=(), steps=9):
    source = SimpleNamespace(tokens=0, epoch=lambda step: 0.0, metrics=dict)
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    return Metrics(
        log, source, schedule, every=every, steps=steps, max_bad_steps=3, pending=pending
    )


def moment(step, metrics, last=False, **more):
    counters = {"skipped": 0, "skipped_in_a_row": 0}
    return StepInfo(step, last, more.get("state"), None, counters | metrics)


def test_6_the_divisors_of_policy_losses_are_named_and_dr_grpos_is_a_constant():
    """verl 3741; Marin's DAPO reduction had an extra 1/B. Two responses of 1 and 3 tokens of at
    most 4, each token with the loss 1.
    """
    mask = jnp.array([[1, 0, 0, 0], [1, 1, 1, 0]], bool)
    fields = {"mask": mask, "present": mask.any(-1), "lens": mask.sum(-1).astype(jnp.float32)}
    means = {}
    for name in ("grpo", "dr_grpo", "dapo"):
        weights, divisor = get(name).reduce(fields)
        means[name] = np.asarray(weights / divisor, np.float32)
    third = 1 / 3
    np.testing.assert_allclose(means["grpo"], mask * np.array([[1.0], [third]]) / 2, rtol=1e-6)
    np.testing.assert_allclose(means["dr_grpo"], mask / (2 * 4), rtol=1e-6)
    np.testing.assert_allclose(means["dapo"], mask / 4, rtol=1e-6)


def test_26_a_checkpoint_between_two_lines_of_the_log_loses_no_metric(tmp_path):
    """A run cut at step 2 of 3 writes the line that one which never stopped writes."""
    lines = []
    for name, cut in (("whole", None), ("cut", 2)):
        log = RunLog(tmp_path / name, steps=3, start=0)
        hook = hook_of(log, every=3)
        for step in (1, 2, 3):
            hook(moment(step, {"loss": np.float32(0.1) * step, "grad_norm": np.float32(step)}))
            if step == cut:
                saved = json.loads(json.dumps(hook.pending()))
                hook = hook_of(log, every=3, pending=saved)
        log.close()
        (line,) = log.path.read_text().splitlines()
        lines.append(
            {k: v for k, v in json.loads(line).items() if k in ("step", "loss", "grad_norm")}
        )
    assert lines[0] == lines[1]


def test_26_the_learning_rate_reported_is_the_one_used_after_a_skipped_step(tmp_path):
    """A skipped step does not advance the optimizer's clock."""
    log = RunLog(tmp_path, steps=9, start=0)
    hook, counts = hook_of(log, every=1), ((0, 0), (1, 1), (1, 0), (1, 0))
    for step, (skipped, in_a_row) in enumerate(counts, 1):
        hook(moment(step, {"loss": 1.0, "skipped": skipped, "skipped_in_a_row": in_a_row}))
    log.close()
    rates = [json.loads(line)["learning_rate"] for line in log.path.read_text().splitlines()]
    np.testing.assert_allclose(rates, [1.0, 0.9, 0.9, 0.8], rtol=1e-6)


def test_26_a_run_that_starts_afresh_after_a_kill_has_every_line_once(tmp_path):
    """Killed before the first checkpoint, in the middle of a character."""
    log = RunLog(tmp_path, steps=9, start=0)
    log.write(0, {"loss": 1.0}, "eval")
    log.text(4, "generations", [{"prompt": "a\u2028b"}])  # a line break to str, not to JSON Lines
    log.close()
    with log.path.open("ab") as file:
        file.write('{"step": 5, "rows": ["é'.encode()[:-1])
    kept = RunLog(tmp_path, steps=9, start=4)
    kept.close()
    assert [json.loads(x)["step"] for x in log.path.read_text().split("\n") if x] == [0, 4]
    fresh = RunLog(tmp_path, steps=9, start=0)
    fresh.write(0, {"loss": 1.0}, "eval")
    fresh.close()
    assert len(log.path.read_text().splitlines()) == 1


def test_26_of_several_processes_one_keeps_the_record(tmp_path):
    log = RunLog(tmp_path / "second", steps=1, start=0, writes=False)
    log.write(1, {"loss": 1.0})
    log.text(1, "generations", [])
    log.close()
    assert not (tmp_path / "second").exists()


def test_26_a_run_that_is_told_to_stop_does_not_evaluate_first(tmp_path):
    log = RunLog(tmp_path, steps=1, start=0)
    told = iter([False, True])
    batches = [batch(), batch(seed=1)]
    evaluate = make_eval_step(get("simpo"), apply)
    hook = Evaluate(
        Evaluations(log), evaluate, lambda: iter(batches), every=1, stop=lambda: next(told)
    )
    state = SimpleNamespace(params=params(), carry={}, ref=None, last=None)
    hook.run(1, state, Frozen(None, None))
    assert log.rows("eval") == [] and next(told, None) is None
    log.close()


DPO = options_of(
    config.Config(algorithm={"name": "dpo"}, optim=config.OptimConfig(learning_rate=1e-3))
)


def facts(given=DPO, steps=10, spec="rope 1e4"):
    state = SimpleNamespace(params=params())
    return identity_of(setup_of(given, spec), None, state, Frozen({}, params()), steps)


def setup_of(options, spec="", reward=None):
    """What a run has loaded, as far as its identity reads it."""
    return SimpleNamespace(
        options=options, inputs=Inputs(), tokenizer=byte_level(), reward=reward,
        roles=SimpleNamespace(decoder=SimpleNamespace(spec=spec)),
        examples=SimpleNamespace(fingerprint="f"), held=None,
    )  # fmt: skip


def test_27_another_learning_rate_schedule_or_architecture_is_another_run():
    """What would silently change a run that goes on is among the facts that may not change."""
    constant = replace(DPO, optim=replace(DPO.optim, schedule="constant"))
    assert facts() == facts()
    assert (
        facts()["optimizer"]
        != facts(replace(DPO, optim=replace(DPO.optim, learning_rate=1e-4)))["optimizer"]
    )
    assert facts()["schedule_steps"] != facts(steps=20)["schedule_steps"]  # a cosine to another end
    assert facts(constant) == facts(constant, steps=20)  # more steps of the same
    assert (
        facts()["base_model"] != facts(spec="rope 5e5")["base_model"]
    )  # equal weights, other function


def test_27_another_reward_behind_the_same_name_is_another_run(tmp_path):
    """A function whose file was edited: refused by its name, with what it means and the option."""
    file = tmp_path / "reward.py"
    name = f"{file}:score"
    rewards = config.RewardConfig(functions={name: 1.0})
    given = options_of(config.Config(algorithm={"name": "grpo"}, steps=2, reward=rewards))
    source = Online.__new__(Online)
    source.pretraining = source.teacher = None

    def now(text):
        file.write_text(f"def score(prompts, responses):\n    return {text}\n")
        reward = SimpleNamespace(identity=identity_of_reward(given.reward))
        state = SimpleNamespace(params=params())
        return identity_of(setup_of(given, reward=reward), source, state, Frozen({}, None), 2)

    first = now("[len(r) for r in responses]")
    check_identity(first, now("[len(r) for r in responses]"), unsaid=unsaid(given), notes=NOTES)
    changed = now("[-len(r) for r in responses]")
    with pytest.raises(ResumeError) as e:
        check_identity(first, changed, unsaid=unsaid(given), notes=NOTES)
    said = str(e.value)
    assert f"judged_by.functions.{name}: the checkpoint has" in said
    assert "the file of this reward function has changed" in said
    assert "--checkpoint.allow_mismatch '[judged_by]'" in said and said.count("\n") == 2
    older = {fact: value for fact, value in first.items() if fact not in ("judged_by", "shuffle")}
    check_identity(older, changed, unsaid=unsaid(given), notes=NOTES)


def test_27_a_source_named_twice_is_not_dropped_silently(tmp_path):
    row = {"prompt": "a", "chosen": " a", "rejected": " b"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    twice = config.DataConfig(train=[str(tmp_path / "a.jsonl")] * 2, holdout=0)
    with pytest.raises(ValueError, match="is in the mixture twice"):
        build_data.examples_of(replace(DPO, data=twice), byte_level())


def test_27_held_out_data_are_never_the_training_split(tmp_path):
    """A folder with several splits, named for both: each key reads its own."""
    for split, n in (("train", 6), ("test", 3), ("validation", 2)):
        rows = [{"prompt": f"{split} {i}", "chosen": " a", "rejected": " b"} for i in range(n)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = config.DataConfig(train=str(tmp_path), eval=str(tmp_path))
    train, held = build_data.examples_of(replace(DPO, data=data), byte_level())
    assert (len(train), len(held)) == (6, 3)
    _, held = build_data.examples_of(
        replace(DPO, data=replace(data, eval_split="validation")), byte_level()
    )
    assert len(held) == 2
    with pytest.raises(ValueError, match="no split 'prefs'; there is: test, train, validation"):
        build_data.examples_of(replace(DPO, data=replace(data, eval_split="prefs")), byte_level())
