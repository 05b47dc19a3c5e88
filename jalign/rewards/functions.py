"""Weighted sum of named reward functions; failures are counted, never silent.

A function that returns None does not apply to a response, and the others decide, as in TRL. If one
fails, the reward of the response is NaN and the failure is counted. Neither case is a reward of 0,
which would be a judgment.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jalign.core import did_you_mean
from jalign.rewards.chat_client import FatalStatus
from jalign.rewards.resolve import Signature, display_name, find
from jalign.rewards.rules import RULES
from jalign.user_code import name_of


class Scored(NamedTuple):
    """What reward functions return for n responses.

    Attributes:
      total: [n] float64, sum of weight * reward over the functions that apply; NaN where one with a
        weight other than 0 failed, or none of those applies.
      each: name -> [n] float64 rewards, NaN if missing.
      failed: name -> responses for which the function failed.
      absent: name -> responses to which it does not apply.
      errors: name -> why, for the first of them; only functions that failed.
      tracebacks: name -> where it was raised; only functions that raised.
      applies: [n] whether a function with a weight other than 0 applies; all True without one.
    """

    total: np.ndarray
    each: dict[str, np.ndarray]
    failed: dict[str, int]
    absent: dict[str, int]
    errors: dict[str, str]
    tracebacks: dict[str, str]
    applies: np.ndarray

    def metrics(self) -> dict[str, float]:
        """`rewards/NAME/mean`, `std` (over responses, of those that have one), `failed` and
        `absent` (numbers of responses).
        """
        metrics = {}
        for name, x in self.each.items():
            x = x[~np.isnan(x)]
            metrics[f"rewards/{name}/mean"] = float(x.mean()) if x.size else math.nan
            metrics[f"rewards/{name}/std"] = float(x.std()) if x.size else math.nan
            metrics[f"rewards/{name}/failed"] = float(self.failed[name])
            metrics[f"rewards/{name}/absent"] = float(self.absent[name])
        return metrics

    def record(self) -> Mapping[str, object]:
        """As JSON values, to be sent to other processes."""
        each = {name: x.tolist() for name, x in self.each.items()}
        arrays = {"total": self.total.tolist(), "applies": self.applies.tolist()}
        return self._asdict() | arrays | {"each": each}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Scored:
        """The inverse of `record`."""
        each = {name: np.asarray(x, np.float64) for name, x in record["each"].items()}
        arrays = {"total": np.asarray(record["total"], np.float64), "each": each}
        return cls(**{**record, **arrays, "applies": np.asarray(record["applies"], bool)})


LARGEST = float(np.finfo(np.float32).max)
"""Losses are computed in float32, where larger rewards would be infinite."""

_FATAL = (KeyboardInterrupt, FatalStatus)
"""Raised, not counted as failures: Ctrl-C, and a server that refuses every request."""


class _Part(NamedTuple):
    name: str
    fn: Callable[..., Any]
    weight: float
    options: dict[str, Any]
    signature: Signature


class RewardFunctions:
    """`functions(prompts, responses, columns) -> Scored`.

    A function is called once with all responses, by position, and with those columns it names
    (`jalign.rewards.resolve.Signature`); all of them if it takes `**columns`. It returns a number
    for each response, or None where it does not apply. Coroutine functions run concurrently, in an
    event loop of this call.

    A response fails if its value is not a number in the range of float32 or is an exception. All
    responses of a call fail if it raises (`sys.exit` too) or returns a wrong number of values. Only
    Ctrl-C, and a server that refuses the key, model or address of a judge (`FatalStatus`), raise.

    Args:
      weights: name (or function) -> weight; 0 is only reported (a total of none but these is 0, for
        those who add a reward of their own). A name is that of a rule, of a function as
        `jalign.rewards.resolve.find` takes it, or out of `callables`.
      options: name -> keyword options of the function.
      callables: name -> a function or another callable.

    Raises:
      ValueError: no function, a weight that is not finite, an unknown name, an option
        the function does not have, or that a rule which ships refuses.
    """

    def __init__(
        self,
        weights: Mapping[Any, float],
        *,
        options: Mapping[Any, Mapping[str, Any]] | None = None,
        callables: Mapping[str, Callable[..., Any]] | None = None,
    ):
        weights, options = _by_name(weights), _by_name(options or {})
        callables = dict(callables or {})
        for what, given in (("options", options), ("callables", callables)):
            if unknown := sorted(set(given) - set(weights)):
                near = did_you_mean(unknown[0], weights)
                raise ValueError(f"{what} of {unknown[0]!r}, which has no weight{near}")
        if not weights:
            raise ValueError("there must be at least one reward function")
        names = [display_name(name) for name in weights]
        self._parts: list[_Part] = []
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name} must be finite, got {weight}")
            fn = callables[name] if name in callables else find(name)
            # Functions of one name from two files are told apart by their files.
            shown = display_name(name) if names.count(display_name(name)) == 1 else name
            signature, own = Signature.of(fn, name), dict(options.get(name, {}))
            if not signature.everything:
                for option in sorted(set(own) - signature.options):
                    near = did_you_mean(option, signature.options)
                    raise ValueError(f"{name} has no option {option!r}{near}")
            if any(
                fn is rule for rule in RULES.values()
            ):  # they check their options even without responses
                fn([], [], **own, **{column: [] for column in signature.required})
            self._parts.append(_Part(shown, fn, float(weight), own, signature))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the functions, as in `Scored`."""
        return tuple(part.name for part in self._parts)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the functions, in the order of `names`."""
        return tuple(part.weight for part in self._parts)

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        columns: Mapping[str, Sequence[Any]] | None = None,
        results: Mapping[str, Any] | None = None,
    ) -> Scored:
        """Rewards of n responses.

        Args:
          prompts: one per response.
          columns: further columns of the data, one entry per response.
          results: name -> what one of `callables` returned when it was called elsewhere.

        Raises:
          ValueError: lengths that differ, or a column that a function needs and the data lacks.
        """
        columns, results, n = dict(columns or {}), dict(results or {}), len(responses)
        for name, x in {"prompts": prompts, **columns}.items():
            if len(x) != n:
                raise ValueError(f"{n} responses, but {len(x)} entries of {name}")
        calls = [self._arguments(part, columns) for part in self._parts]
        outputs = [
            results[part.name]
            if part.name in results
            else _called(part.fn, prompts, responses, keywords)
            for part, keywords in zip(self._parts, calls, strict=True)
        ]
        applies = (
            np.zeros(n, bool) if any(part.weight for part in self._parts) else np.ones(n, bool)
        )
        scored = Scored(np.zeros(n), {}, {}, {}, {}, {}, applies)
        for part, result in zip(self._parts, _awaited(outputs), strict=True):
            name, (values, absent, error) = part.name, _values(result, n)
            scored.each[name], scored.absent[name] = values, int(absent.sum())
            scored.failed[name] = int(np.isnan(values).sum()) - scored.absent[name]
            if scored.failed[name]:
                scored.errors[name] = error
            if isinstance(result, BaseException):
                scored.tracebacks[name] = _traceback(result)
            # Weight 0 is to watch: its failures must not cost a response its reward.
            if part.weight:
                applies |= ~absent
                # A failure's NaN reaches the total on purpose; only `absent` adds 0.
                # In place: a NamedTuple cannot be assigned to.
                np.add(scored.total, np.where(absent, 0.0, part.weight * values), out=scored.total)
        scored.total[~applies] = math.nan
        return scored

    def _arguments(self, part: _Part, columns: Mapping[str, Any]) -> dict[str, Any]:
        if missing := sorted(part.signature.required - set(columns)):
            near = did_you_mean(missing[0], columns)
            raise ValueError(f"{part.name} needs the column {missing[0]!r} of the data{near}")
        given = part.signature.columns(columns)
        return {name: columns[name] for name in given} | part.options  # options override columns


def _by_name(values: Mapping[Any, Any]) -> dict[str, Any]:
    """The mapping with functions as keys replaced by their names."""
    return {name_of(x) if callable(x) else x: value for x, value in values.items()}


def _called(fn: Callable[..., Any], prompts: Any, responses: Any, keywords: dict[str, Any]) -> Any:
    try:
        return fn(prompts, responses, **keywords)
    except _FATAL:
        raise
    except BaseException as error:  # code from a response, run by a function, may call exit()
        return error


def _awaited(results: list[Any]) -> list[Any]:
    """The results; coroutines are replaced by what they return or raise."""
    waiting: dict[int, Awaitable[Any]] = {
        i: x for i, x in enumerate(results) if inspect.isawaitable(x)
    }
    if not waiting:
        return results

    async def guarded(one: Awaitable[Any]) -> Any:
        try:
            return await one
        except _FATAL:
            raise
        except BaseException as error:  # SystemExit would end the loop with all other coroutines
            return error

    async def together() -> list[Any]:
        return await asyncio.gather(*map(guarded, waiting.values()))

    with ThreadPoolExecutor(1) as thread:  # the caller's thread may already run a loop
        done = dict(zip(waiting, thread.submit(asyncio.run, together()).result(), strict=True))
    return [done.get(i, x) for i, x in enumerate(results)]


def _values(result: Any, n: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Rewards [n] float64, mask [n] of absent ones, and the reason of the first failure."""
    out, absent = np.full(n, math.nan), np.zeros(n, bool)
    if isinstance(result, BaseException):
        return out, absent, _words(result)
    if isinstance(result, str | bytes | Mapping) or not hasattr(result, "__iter__"):
        return out, absent, f"returned {result!r:.80}, not a number for each response"
    try:
        values, error = list(result), ""
    except _FATAL:
        raise
    except BaseException as problem:
        return out, absent, _words(problem)
    if len(values) != n:
        return out, absent, f"returned {len(values)} values for {n} responses"
    for i, value in enumerate(values):
        out[i], absent[i] = _number(value), value is None
        if math.isnan(out[i]) and not absent[i]:
            failed = isinstance(value, BaseException)
            error = error or str(value if failed else f"response {i} got {value!r:.80}")
    return out, absent, error


def _number(value: Any) -> float:
    """The value as a float; NaN unless it is a number in the range of float32."""
    # float('1') would succeed; a text instead of a number is a mistake of the function.
    if isinstance(value, str) or np.ndim(value):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _traceback(error: BaseException) -> str:
    """Traceback of an error in a function, without our frames."""
    inner = error.__traceback__
    while inner and inner.tb_next and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    lines = traceback.format_exception(type(error), error, inner)
    return "".join(lines).rstrip()
