import jax
import jax.numpy as jnp
import pytest
from _damage import abandoned_reads, damages  # noqa: F401

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.errors import CheckpointError
from jalign.checkpoint.resume import ResumeError, check_identity, resume

IDENTITY = {
    "seed": 3,
    "algorithm": "dpo",
    "batch_size": 8,
    "adapters": {"rank": 4, "targets": ("q", "v")},
}
ABSTRACT = {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}


@pytest.fixture
def empty(tmp_path):
    with Checkpointer(tmp_path / "run", keep=5) as checkpointer:
        yield checkpointer


@pytest.fixture
def filled(empty):
    for step in (10, 20, 30):
        empty.save(step, {"w": jnp.full(3, float(step))}, {"identity": IDENTITY})
    empty.wait()
    return empty


@pytest.fixture
def foreign(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    return Checkpointer(tmp_path / "run")


def damage(checkpointer, step):
    (checkpointer.directory / str(step) / "state" / "manifest.ocdbt").unlink()


def test_auto_and_never_start_fresh_in_an_empty_directory_and_must_does_not(empty):
    assert resume(empty, "auto", ABSTRACT, IDENTITY) is None
    assert resume(empty, "never", ABSTRACT, IDENTITY) is None
    with pytest.raises(ResumeError, match=r"'must' but .* no complete checkpoint"):
        resume(empty, "must", ABSTRACT, IDENTITY)
    with pytest.raises(ResumeError, match="no checkpoint of step 20; saved steps: none"):
        resume(empty, 20, ABSTRACT, IDENTITY)


@pytest.mark.parametrize("policy", ["auto", "must"])
def test_auto_and_must_continue_from_the_newest(filled, policy):
    step, state, meta = resume(filled, policy, ABSTRACT, IDENTITY)
    assert (step, state["w"].tolist(), meta["identity"]["seed"]) == (30, [30.0] * 3, 3)


def test_never_refuses_to_mix_with_earlier_checkpoints(filled):
    with pytest.raises(ResumeError, match=r"steps 10, 20, 30.*choose another directory or delete"):
        resume(filled, "never", ABSTRACT, IDENTITY)


def test_a_step_number_continues_from_it_and_sets_the_later_ones_aside(filled):
    step, state, _ = resume(filled, 20, ABSTRACT, IDENTITY)
    assert (step, state["w"].tolist()) == (20, [20.0] * 3)
    assert filled.steps() == [10, 20]
    assert (filled.directory / "30.aside" / "state").exists()
    filled.save(30, {"w": jnp.zeros(3)}, {})  # the new path may come there again
    filled.wait()
    assert filled.steps() == [10, 20, 30]


def test_a_step_that_does_not_exist_lists_those_that_do(filled):
    with pytest.raises(ResumeError, match="no checkpoint of step 25; saved steps: 10, 20, 30"):
        resume(filled, 25, ABSTRACT, IDENTITY)


def test_files_without_a_finished_checkpoint_are_refused_unless_told_never(foreign):
    with pytest.raises(ResumeError, match=r"notes\.txt.*never"):
        resume(foreign, "auto", ABSTRACT, IDENTITY)
    with pytest.raises(ResumeError, match="must"):
        resume(foreign, "must", ABSTRACT, IDENTITY)
    assert resume(foreign, "never", ABSTRACT, IDENTITY) is None


def test_what_a_killed_first_save_leaves_is_no_obstacle(tmp_path):
    (tmp_path / "10.orbax-checkpoint-tmp").mkdir()
    assert resume(Checkpointer(tmp_path), "auto", ABSTRACT, IDENTITY) is None


@damages
def test_a_damaged_newest_is_set_aside_so_that_its_step_can_be_saved_again(filled):
    damage(filled, 30)
    step, _, _ = resume(filled, "auto", ABSTRACT, IDENTITY)
    assert step == 20
    assert filled.steps() == [10, 20]


@damages
def test_a_step_asked_for_by_number_never_falls_back(filled):
    damage(filled, 30)
    with pytest.raises(CheckpointError, match="step 30"):
        resume(filled, 30, ABSTRACT, IDENTITY)
    assert filled.steps() == [10, 20, 30]


@damages
def test_when_all_are_damaged_nothing_is_touched_and_nothing_starts_fresh(filled):
    for step in (10, 20, 30):
        damage(filled, step)
    with pytest.raises(CheckpointError, match=r"no checkpoint is intact.*step 30.*step 10"):
        resume(filled, "auto", ABSTRACT, IDENTITY)
    assert filled.steps() == [10, 20, 30]


def test_a_changed_identity_is_refused_naming_both_values(filled):
    changed = {**IDENTITY, "seed": 4, "algorithm": "simpo"}
    with pytest.raises(ResumeError) as e:
        resume(filled, "auto", ABSTRACT, changed)
    assert "algorithm: the checkpoint has 'dpo', this run has 'simpo'" in str(e.value)
    assert "seed: the checkpoint has 3, this run has 4" in str(e.value)
    assert "batch_size" not in str(e.value)
    assert filled.steps() == [10, 20, 30]


def test_what_is_allowed_to_differ_may_differ_and_nothing_else(filled):
    changed = {**IDENTITY, "seed": 4, "batch_size": 16}
    with pytest.raises(ResumeError, match="seed: the checkpoint has 3, this run has 4"):
        resume(filled, "auto", ABSTRACT, changed, allow=("batch_size",))
    found = resume(filled, "auto", ABSTRACT, changed, allow=("batch_size", "seed"))
    assert found is not None and found[0] == 30


def test_a_fact_that_is_missing_on_one_side_is_a_change():
    with pytest.raises(
        ResumeError, match=r"tokenizer: the checkpoint has nothing, this run has 'ab'"
    ):
        check_identity({"seed": 1}, {"seed": 1, "tokenizer": "ab"})
    with pytest.raises(
        ResumeError, match=r"tokenizer: the checkpoint has 'ab', this run has nothing"
    ):
        check_identity({"seed": 1, "tokenizer": "ab"}, {"seed": 1})


def test_of_a_fact_with_many_values_only_those_that_differ_are_named_and_the_option_as_well():
    saved = {"rollout": {"epochs": 1, "top_p": 0.9, "stop": ["a"]}, "seed": 1, "steps": 6}
    current = {"rollout": {"epochs": 2, "top_p": 0.9, "stop": ["a", "b"]}, "seed": 1, "steps": 8}
    with pytest.raises(ResumeError) as e:
        check_identity(saved, current, notes={"steps": "to extend: allow it"})
    assert str(e.value).splitlines()[1:] == [
        "  rollout.epochs: the checkpoint has 1, this run has 2",
        "  rollout.stop: the checkpoint has ['a'], this run has ['a', 'b']",
        "  steps: the checkpoint has 6, this run has 8 (to extend: allow it)",
        "Give another --out, or allow it: --checkpoint.allow_mismatch '[rollout, steps]'",
    ]
    check_identity(saved, current, ("rollout", "steps"))


def test_what_older_checkpoints_do_not_say_is_what_they_meant():
    unsaid = {"optimizer": {"moments": "float32"}, "judged_by": None, "shuffle": True}
    saved = {"optimizer": {"name": "sgd"}}
    new = {"optimizer": {"name": "sgd", "moments": "float32"}, "shuffle": True, "judged_by": {}}
    check_identity(saved, new, unsaid=unsaid)
    for changed in ({"shuffle": False}, {"optimizer": {"name": "sgd", "moments": "int8"}}):
        with pytest.raises(ResumeError, match=r"the checkpoint has (True|'float32'), this run has"):
            check_identity(saved, new | changed, unsaid=unsaid)
    with pytest.raises(ResumeError, match=r"judged_by\.f: the checkpoint has 'ab', this run has"):
        check_identity(new | {"judged_by": {"f": "ab"}}, new | {"judged_by": {"f": "c"}})


def test_a_tuple_is_the_list_that_json_made_of_it():
    check_identity({"targets": ["q", "v"]}, {"targets": ("q", "v")})


def test_an_allowed_fact_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="no fact 'sed' about a run; did you mean 'seed'"):
        check_identity({"seed": 1}, {"seed": 1}, ("sed",))


@pytest.mark.parametrize("policy", ["atuo", None, True, 1.5])
def test_an_unknown_policy_is_an_error(empty, policy):
    with pytest.raises(ValueError, match="resume must be"):
        resume(empty, policy, ABSTRACT, IDENTITY)
