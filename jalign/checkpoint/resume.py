"""Decide whether a run may resume from its directory; refuse anything ambiguous."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from jaxtyping import PyTree

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.manifest import Facts, Meta
from jalign.core import did_you_mean

ResumePolicy = Literal["auto", "never", "must"] | int


_NOTHING = object()


class ResumeError(ValueError):
    """The directory does not allow what was requested, or belongs to another run."""


def check_identity(
    saved: Facts,
    current: Facts,
    allow: tuple[str, ...] = (),
    *,
    unsaid: Facts = {},  # noqa: B006  # never written to
    notes: Mapping[str, str] = {},
) -> None:
    """Compare the facts that must not change during a run.

    Args:
      saved: facts of the checkpoint: name -> value, or a dictionary of values.
      current: facts of this run.
      allow: names of facts that may differ.
      unsaid: defaults for facts (and for entries of dictionaries) that older checkpoints lack; None
        for a fact matches any value.
      notes: prefix of a fact's name -> explanation appended to its difference.

    Raises:
      ResumeError: a fact outside of `allow` changed; names each value, saved and current.
      ValueError: `allow` names an unknown fact.
    """
    # The saved facts went through JSON: tuples became lists there, so they must here.
    old, new, unsaid = (json.loads(json.dumps(dict(x))) for x in (saved, current, unsaid))
    names = sorted({**old, **new})
    for name in allow:
        if name not in names:
            near = did_you_mean(name, names)
            raise ValueError(f"allow_mismatch: there is no fact {name!r} about a run{near}")
    facts, lines = [], []
    for name in names:
        if name in allow or (name not in old and name in unsaid and unsaid[name] is None):
            continue
        if changed := list(_changed(name, old, new, unsaid)):
            facts.append(name)
            for full, was, now in changed:
                note = next((f" ({x})" for start, x in notes.items() if full.startswith(start)), "")
                lines.append(f"  {full}: the checkpoint has {was}, this run has {now}{note}")
    if facts:
        raise ResumeError(
            "this is not the run that was saved:\n"
            + "\n".join(lines)
            + "\nGive another --out, or allow it: "
            + f"--checkpoint.allow_mismatch '[{', '.join(facts)}]'"
        )


def _changed(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], unsaid: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """(full name, saved value, current value) of every difference below a name."""
    values = [of.get(name, unsaid.get(name, _NOTHING)) for of in (old, new)]
    if values[0] == values[1]:
        return
    if all(isinstance(value, dict) for value in values):
        below = unsaid.get(name) if isinstance(unsaid.get(name), dict) else {}
        for inner in sorted({**values[0], **values[1]}):
            changes = _changed(inner, values[0], values[1], below or {})
            yield from ((f"{name}.{full}", was, now) for full, was, now in changes)
        return
    was, now = ("nothing" if value is _NOTHING else repr(value) for value in values)
    yield name, was, now


def resume(
    checkpointer: Checkpointer,
    policy: ResumePolicy,
    abstract_state: PyTree,
    identity: Facts,
    *,
    allow: tuple[str, ...] = (),
    unsaid: Facts = {},  # noqa: B006  # never written to
    notes: Mapping[str, str] = {},
    read: Callable[[Meta], None] = lambda meta: None,
    upgrade: Callable[[Facts], Facts] = dict,
) -> tuple[int, PyTree, Meta] | None:
    """Resume from this directory: (step, state, meta), or None to start fresh.

    Checkpoints newer than the restored one (damaged ones, or those of a future that is given up)
    are renamed to `<step>.aside`, so that they are neither overwritten nor restored later.

    Args:
      checkpointer: of the run's directory.
      policy: "auto" resumes from the newest intact checkpoint, or starts fresh in an empty
        directory; "never" starts fresh and refuses a directory with checkpoints; "must" refuses to
        start fresh; a number resumes from exactly that step.
      abstract_state: shapes, dtypes and shardings of the state.
      identity: facts that must not change during a run (data, tokenizer, base model, algorithm,
        seed, batch size ...); the caller saves them as `meta["identity"]`.
      allow, unsaid, notes: as for `check_identity`.
      read: called with the meta of a checkpoint of this run, to read what is stored outside of it;
        if it raises `CheckpointError`, that checkpoint counts as damaged.
      upgrade: brings the identity that an older version saved under today's names.

    Raises:
      ResumeError: the directory does not allow this policy, or belongs to another run.
      CheckpointError: there are checkpoints and none is intact.
    """
    asked = policy if isinstance(policy, int) and not isinstance(policy, bool) else None
    if asked is None and policy not in ("auto", "never", "must"):
        near = did_you_mean(str(policy), ("auto", "never", "must"))
        raise ValueError(
            f"resume must be 'auto', 'never', 'must' or a step number, got {policy!r}{near}"
        )
    steps = checkpointer.steps()
    where = checkpointer.directory
    saved_steps = ", ".join(map(str, steps)) or "none"
    if policy == "never":
        if steps:
            raise ResumeError(
                f"{where} already holds checkpoints (steps {saved_steps}) and resume is 'never':"
                " choose another directory or delete this one"
            )
        return None
    if asked is not None and asked not in steps:
        raise ResumeError(f"{where} has no checkpoint of step {asked}; saved steps: {saved_steps}")
    if not steps:
        if policy == "must":
            raise ResumeError(f"resume is 'must' but {where} has no complete checkpoint")
        if leftovers := checkpointer.leftovers():
            raise ResumeError(
                f"{where} has files but no complete checkpoint ({', '.join(leftovers[:5])}):"
                " choose another directory, delete this one, or start fresh with resume='never'"
            )
        return None

    def check(meta: Meta) -> None:
        saved = upgrade(meta.get("identity", {}))
        check_identity(saved, identity, allow, unsaid=unsaid, notes=notes)
        read(meta)

    restored = checkpointer.restore(abstract_state, asked, check=check)
    if restored is not None:
        checkpointer.set_aside_after(restored[0])
    return restored
