"""Several reward functions as one: each named and weighted, none of them able to fail unseen.

A reward that is missing is NaN and counted. It is never 0, which would be an opinion.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jalign.core import did_you_mean
from jalign.rewards.chat_client import Refused
from jalign.rewards.named import Signature, find, short
from jalign.rewards.rules import RULES


class Scored(NamedTuple):
    """What reward functions say of n responses.

    Attributes:
      total: [n] float64, sum of weight * reward; NaN where a function with a weight other than 0
        has no reward.
      each: name -> [n] float64 rewards, NaN where there is none.
      failed: name -> responses without a reward.
      errors: name -> why, for the first of them; only functions that failed.
    """

    total: np.ndarray
    each: dict[str, np.ndarray]
    failed: dict[str, int]
    errors: dict[str, str]

    def metrics(self) -> dict[str, float]:
        """`rewards/NAME/mean`, `std` (over responses, of those that have one) and `failed`."""
        found = {}
        for name, x in self.each.items():
            x = x[~np.isnan(x)]
            found[f"rewards/{name}/mean"] = float(x.mean()) if x.size else math.nan
            found[f"rewards/{name}/std"] = float(x.std()) if x.size else math.nan
            found[f"rewards/{name}/failed"] = float(self.failed[name])
        return found

    def record(self) -> dict[str, Any]:
        """As JSON can tell it."""
        each = {name: x.tolist() for name, x in self.each.items()}
        return self._asdict() | {"total": self.total.tolist(), "each": each}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Scored:
        """What `record` told."""
        each = {name: np.asarray(x, np.float64) for name, x in record["each"].items()}
        total = np.asarray(record["total"], np.float64)
        return cls(total, each, dict(record["failed"]), dict(record["errors"]))


class _Part(NamedTuple):
    name: str
    fn: Callable[..., Any]
    weight: float
    options: dict[str, Any]
    signature: Signature


class RewardFunctions:
    """`functions(prompts, responses, columns) -> Scored`.

    A function is called once with all responses, by position, and with those columns it names
    (`jalign.rewards.named.Signature`); all of them if it takes `**columns`. It returns a number or
    None for each response. Coroutine functions run concurrently, in an event loop of this call.

    Missing is: None, what is no finite number, all of a call that raises, and all of one that
    returns another number of values than there are responses. Only a server that refuses the key,
    model or address of a judge (`Refused`) ends it all.

    Args:
      weights: name -> weight; 0 is only reported (a total of none but these is 0, for those who add
        a reward of their own). A name is that of a rule, of a function as
        `jalign.rewards.named.find` takes it, or out of `callables`.
      options: name -> keyword options of the function.
      callables: name -> a function, or anything else that can be called like one.

    Raises:
      ValueError: no function, a weight that is not finite, an unknown name, an option
        the function does not have, or that a rule which ships refuses.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        callables: Mapping[str, Callable[..., Any]] | None = None,
    ):
        options, callables = dict(options or {}), dict(callables or {})
        for what, given in (("options", options), ("callables", callables)):
            if unknown := sorted(set(given) - set(weights)):
                near = did_you_mean(unknown[0], weights)
                raise ValueError(f"{what} of {unknown[0]!r}, which has no weight{near}")
        if not weights:
            raise ValueError("there must be at least one reward function")
        names = [short(name) for name in weights]
        self._parts: list[_Part] = []
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name} must be finite, got {weight}")
            fn = callables[name] if name in callables else find(name)
            shown = short(name) if names.count(short(name)) == 1 else name
            signature, own = Signature.of(fn, name), dict(options.get(name, {}))
            if not signature.everything:
                for option in sorted(set(own) - signature.options):
                    near = did_you_mean(option, signature.options)
                    raise ValueError(f"{name} has no option {option!r}{near}")
            if any(
                fn is rule for rule in RULES.values()
            ):  # they check their options first, also for no responses
                fn([], [], **own, **{column: [] for column in signature.required})
            self._parts.append(_Part(shown, fn, float(weight), own, signature))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the functions, as in `Scored`."""
        return tuple(part.name for part in self._parts)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        columns: Mapping[str, Sequence[Any]] | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> Scored:
        """Rewards of n responses.

        Args:
          prompts: one per response.
          columns: further columns of the data, one entry per response.
          said: name -> what one of `callables` returned when it was called elsewhere.

        Raises:
          ValueError: lengths that differ, or a column that a function needs and the data lacks.
        """
        columns, said, n = dict(columns or {}), dict(said or {}), len(responses)
        for name, x in {"prompts": prompts, **columns}.items():
            if len(x) != n:
                raise ValueError(f"{n} responses, but {len(x)} entries of {name}")
        calls = [self._arguments(part, columns) for part in self._parts]
        results = [
            said[part.name] if part.name in said else _called(part.fn, prompts, responses, keywords)
            for part, keywords in zip(self._parts, calls, strict=True)
        ]
        found = Scored(np.zeros(n), {}, {}, {})
        for part, result in zip(self._parts, _awaited(results), strict=True):
            values, error = _values(result, n)
            found.each[part.name], missing = values, int(np.isnan(values).sum())
            found.failed[part.name] = missing
            if missing:
                found.errors[part.name] = error
            if part.weight:
                np.add(found.total, part.weight * values, out=found.total)
        return found

    def _arguments(self, part: _Part, columns: Mapping[str, Any]) -> dict[str, Any]:
        if missing := sorted(part.signature.required - set(columns)):
            near = did_you_mean(missing[0], columns)
            raise ValueError(f"{part.name} needs the column {missing[0]!r} of the data{near}")
        given = part.signature.columns(columns)
        return {name: columns[name] for name in given} | part.options  # what is set counts


def _called(fn: Callable[..., Any], prompts: Any, responses: Any, keywords: dict[str, Any]) -> Any:
    try:
        return fn(prompts, responses, **keywords)
    except Refused:  # no attempt will do better
        raise
    except Exception as error:
        return error


def _awaited(results: list[Any]) -> list[Any]:
    """The same, coroutines run to their end: what they return or raise."""
    waiting: dict[int, Awaitable[Any]] = {
        i: x for i, x in enumerate(results) if inspect.isawaitable(x)
    }
    if not waiting:
        return results

    async def together() -> list[Any]:
        return await asyncio.gather(*waiting.values(), return_exceptions=True)

    with ThreadPoolExecutor(1) as thread:  # where this is called from a loop may run already
        done = dict(zip(waiting, thread.submit(asyncio.run, together()).result(), strict=True))
    return [done.get(i, x) for i, x in enumerate(results)]


def _values(result: Any, n: int) -> tuple[np.ndarray, str]:
    """[n] float64, and why the first NaN is one."""
    out = np.full(n, math.nan)
    if isinstance(result, BaseException):
        return out, f"{type(result).__name__}: {result}"
    if isinstance(result, str | bytes | Mapping) or not hasattr(result, "__iter__"):
        return out, f"returned {result!r:.80}, not a number for each response"
    try:
        values, error = list(result), ""
    except Exception as problem:
        return out, f"{type(problem).__name__}: {problem}"
    if len(values) != n:
        return out, f"returned {len(values)} values for {n} responses"
    for i, value in enumerate(values):
        out[i] = _number(value)
        if math.isnan(out[i]):
            error = error or f"response {i} got {value!r:.80}"
    return out, error


def _number(value: Any) -> float:
    """As a float; NaN for what is no finite number."""
    if isinstance(value, str) or np.ndim(value):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
