"""Continuous batching of one model: which request has which row, on the host."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from jalign.kernels import devices
from jalign.models.decoder import Decoder
from jalign.models.limits import check_length
from jalign.rollout import slots as rows_of
from jalign.rollout.decode_model import for_sampling
from jalign.rollout.slots import Decoded, RowSettings, Scored, Slots
from jalign.run.policy import Policy
from jalign.serve.text import ResponseText
from jalign.serve.types import Limits, Listener, Piece, Request, Token

LOG = logging.getLogger(__name__)

USUAL_CONTEXT = 2048  # tokens of a row where the model has more: a row of the cache takes them all
SHORTEST = 64  # tokens of the shortest prefill

# Prompts of one prefill: on accelerators four cost little more than one, whose weights are read
# once; on CPU padding costs its arithmetic.
TOGETHER = {"cpu": 1}
USUAL_TOGETHER = 4

# Prefills before responses under way go on: prompts alone would hold them up.
ADMISSIONS = 4


@dataclass(eq=False)
class Task:
    """A request on its way: who listens, what it has, whether it is still wanted."""

    request: Request
    index: int
    listen: Listener
    seed: int
    text: ResponseText
    count: int = 0
    canceled: bool = False

    def emit(self, piece: Piece) -> None:
        """Hand a piece to the listener; one that fails has gone, and no other is to suffer."""
        try:
            self.listen(self.index, piece)
        except Exception as error:
            LOG.warning("a listener failed (%s): its request is dropped", error)
            self.canceled = True


class ModelBatch:
    """Rows of one model, which its requests share.

    Args:
      policy: the model.
      limits: sizes.

    Attributes:
      max_len: most tokens of a prompt with its response.
      waiting: tasks without a row.

    Raises:
      ValueError: more positions than the model has.
    """

    def __init__(self, policy: Policy, limits: Limits):
        self.policy, self.limits, spec = policy, limits, policy.decoder.spec
        known = [n for n in (spec.context, spec.learned_positions) if n is not None]
        self.max_len = limits.max_len or min([*known, USUAL_CONTEXT])
        warning = check_length(
            self.max_len, spec, where="max_len", model=policy.path, remedy="set max_len lower"
        )
        if warning:
            LOG.warning("%s", warning)
        # A multiple, so that the log-probs of prompts come in equal blocks.
        multiple = 128 if self.max_len > 128 else SHORTEST
        self.slots_per_row = -(-self.max_len // multiple) * multiple
        self.together = min(TOGETHER.get(devices.platform(), USUAL_TOGETHER), limits.rows)
        self.waiting: deque[Task] = deque()
        self._rows: list[Task | None] = [None] * limits.rows
        self._vocabulary = spec.vocab_size
        # Filled up with what no token is: models that end by one or by two share a program.
        self._eos = np.full(-(-len(policy.eos) // 4) * 4, -1, np.int32)
        self._eos[: len(policy.eos)] = policy.eos
        with jax.set_mesh(policy.mesh):
            self._weights = for_sampling(_scanned(policy.decoder), limits.rows)
            self._slots = self._empty()

    @property
    def buckets(self) -> list[int]:
        """Lengths that prompts are padded to: powers of two, and all slots of a row."""
        powers = (SHORTEST << i for i in range(self.slots_per_row.bit_length()))
        return [*(n for n in powers if n < self.slots_per_row), self.slots_per_row]

    @property
    def busy(self) -> bool:
        """Whether a request waits or has a row."""
        return bool(self.waiting) or any(self._rows)

    @property
    def running(self) -> int:
        """Rows with a request."""
        return sum(task is not None for task in self._rows)

    def check(self, request: Request) -> None:
        """Raise ValueError for a request that has no place in a row."""
        longest = self.limits.max_new_tokens
        if longest is not None and request.max_tokens > longest:
            raise ValueError(f"max_tokens is at most {longest} here, got {request.max_tokens}")
        if len(request.prompt) + request.max_tokens > self.max_len:
            raise ValueError(
                f"at most {self.max_len} tokens fit, and the prompt has {len(request.prompt)} "
                f"beside the {request.max_tokens} of max_tokens"
            )
        if outside := [i for i in request.prompt if not 0 <= i < self._vocabulary]:
            raise ValueError(f"the model has tokens 0 to {self._vocabulary - 1}, got {outside[0]}")

    def task(self, request: Request, index: int, listen: Listener, seed: int) -> Task:
        """A request as it waits."""
        ends = () if request.ignore_eos else self.policy.eos
        text = ResponseText(self.policy.tokenizer, request.prompt, ends, request.stop)
        return Task(request, index, listen, seed, text)

    def warm_up(self, bucket: int | None) -> None:
        """Compile what reads prompts of this length, or (None) what decodes."""
        with jax.set_mesh(self.policy.mesh):
            if bucket is None:
                self._decode(rows_of.LOGPS)
            else:
                self._prefill([], [], bucket)

    def step(self) -> None:
        """Admit waiting requests, then decode a chunk of tokens for every row."""
        with jax.set_mesh(self.policy.mesh):
            self._drop_canceled()
            for _ in range(ADMISSIONS):
                if not self._admit():
                    break
            if any(self._rows):
                self._advance()

    def fail(self, error: Exception) -> None:
        """End every request that has a row, and start with empty rows."""
        for task in filter(None, self._rows):
            task.emit(Piece(error=error))
        self._rows = [None] * len(self._rows)
        with jax.set_mesh(self.policy.mesh):
            self._slots = self._empty()

    def _empty(self) -> Slots:
        return rows_of.empty_slots(self._weights, rows=len(self._rows), slots=self.slots_per_row)

    def _drop_canceled(self) -> None:
        for task in [task for task in self.waiting if task.canceled]:
            self.waiting.remove(task)
            task.emit(Piece(finish="canceled"))
        for row, task in enumerate(self._rows):
            if task and task.canceled:
                self._rows[row] = None
                task.emit(Piece(finish="canceled"))

    def _admit(self) -> bool:
        """Read the next prompts that wait; False if there is none, or no row for it."""
        free = [row for row, task in enumerate(self._rows) if task is None]
        tasks: list[Task] = []
        at: list[int] = []
        while self.waiting and len(tasks) < self.together:
            task = self.waiting[0]
            # The prefill draws the first token: who wants no other needs no row.
            alone = task.request.max_tokens <= 1
            if not alone and not free:
                break
            if tasks and self._bucket(task) != self._bucket(tasks[0]):
                break
            at.append(len(self._rows) if alone else free.pop(0))
            tasks.append(self.waiting.popleft())
        if not tasks:
            return False
        for task, row in zip(tasks, at, strict=True):
            if row < len(self._rows):
                self._rows[row] = task
        try:
            added, prompts = self._prefill(tasks, at, self._bucket(tasks[0]))
        except Exception as error:
            for task, row in zip(tasks, at, strict=True):
                if row == len(self._rows):  # `fail` knows of rows alone
                    task.emit(Piece(error=error))
            raise
        for i, (task, row) in enumerate(zip(tasks, at, strict=True)):
            prompt = _tokens(prompts, i, len(task.request.prompt), task.request.prompt_logprobs)
            prompt = (prompt[0]._replace(logp=None, top=()), *prompt[1:]) if prompt else ()
            self._hand_out(task, row, added, i, prompt)
        return True

    def _advance(self) -> None:
        want = max(_level(task.request.top_logprobs) for task in self._rows if task)
        added = self._decode(want)
        for row, task in enumerate(self._rows):
            if task:
                self._hand_out(task, row, added, row)

    def _hand_out(
        self, task: Task, row: int, added: Decoded, i: int, prompt: tuple[Token, ...] = ()
    ) -> None:
        """Emit what entry `i` of a call has added to a request, and free its row at its end."""
        request = task.request
        count = min(int(added.count[i]), request.max_tokens - task.count)
        tokens = _tokens(added.tokens, i, count, request.top_logprobs)
        task.count += count
        finish = "stop" if added.ended[i] and count else None
        if finish is None and task.count >= request.max_tokens:
            finish = "length"
        text, kept = task.text.add([token.id for token in tokens], last=finish is not None)
        if kept is not None:
            tokens, finish = tokens[:kept], "stop"
        if finish and row < len(self._rows):
            self._rows[row] = None
        task.emit(Piece(text, tokens, prompt, finish))

    def _bucket(self, task: Task) -> int:
        return next(n for n in self.buckets if n >= len(task.request.prompt))

    def _prefill(
        self, tasks: Sequence[Task], rows: Sequence[int], length: int
    ) -> tuple[Decoded, Scored | None]:
        """The first tokens, and the prompts with their log-probs if a task wants them."""
        r, requests = self.together, [task.request for task in tasks]
        prompts, lengths = np.zeros((r, length), np.int32), np.ones(r, np.int32)
        for i, request in enumerate(requests):
            prompts[i, : len(request.prompt)], lengths[i] = request.prompt, len(request.prompt)
        wanted = [q.prompt_logprobs for q in requests if q.prompt_logprobs is not None]
        want_prompt = max(map(_level, wanted), default=rows_of.NOTHING)
        want = max((_level(q.top_logprobs) for q in requests), default=rows_of.LOGPS)
        # Out of range, which keeps nothing.
        at = np.array([*rows, *[len(self._rows)] * (r - len(rows))], np.int32)
        keys, settings = _keys(tasks, r), _settings(requests, r, self._vocabulary)
        self._slots, logits, scored = rows_of.admit(
            self._weights, self._slots, prompts, lengths, keys, at, settings, np.int32(want_prompt)
        )
        self._slots, added = rows_of.begin(
            self._slots, logits, keys, at, settings, self._eos, np.int32(want)
        )
        return jax.device_get(added), jax.device_get(scored) if wanted else None

    def _decode(self, want: int) -> Decoded:
        self._slots, added = rows_of.advance(
            self._weights,
            self._slots,
            np.array([task is not None for task in self._rows]),
            self._eos,
            np.int32(want),
            count=self.limits.chunk,
        )
        return jax.device_get(added)


def _scanned(decoder: Decoder) -> Decoder:
    """The decoder with its layers in one loop: prompts of every length have a program of their own,
    and unrolled they would take several times as long to compile, for a tenth of the speed.
    """
    graphdef, state = nnx.split(decoder)
    scanned = nnx.merge(graphdef, state)
    if isinstance(scanned, Decoder):  # a module of the user's has no such switch
        scanned.unroll = False
    return scanned


def _keys(tasks: Sequence[Task], count: int) -> jax.Array:
    """A random key for each request, of its seed and index alone."""
    seeds, indices = np.zeros((2, count), np.uint32)
    for i, task in enumerate(tasks):
        seeds[i], indices[i] = task.seed % 2**32, task.request.index
    return _folded(seeds, indices)


@jax.jit
def _folded(seeds: jax.Array, indices: jax.Array) -> jax.Array:
    return jax.vmap(lambda seed, i: jax.random.fold_in(jax.random.key(seed), i))(seeds, indices)


def _settings(requests: Sequence[Request], count: int, vocabulary: int) -> RowSettings:
    """The settings of requests as arrays [count]."""
    filled = [*requests, *[Request(prompt=(0,), temperature=0.0)] * (count - len(requests))]
    floats = {n: [getattr(q, n) for q in filled] for n in ("temperature", "top_p", "min_p")}
    return RowSettings(
        **{name: np.array(values, np.float32) for name, values in floats.items()},  # type: ignore[arg-type]
        top_k=np.array([min(q.top_k or vocabulary, vocabulary) for q in filled], np.int32),  # type: ignore[arg-type]
        limit=np.array([max(q.max_tokens, 1) for q in filled], np.int32),  # type: ignore[arg-type]
        ends=np.array([not q.ignore_eos for q in filled]),  # type: ignore[arg-type]
    )


def _level(alternatives: int) -> int:
    """How much of the distribution of a token a request needs."""
    return (rows_of.LOGPS, rows_of.BEST)[alternatives] if alternatives < 2 else rows_of.ALTERNATIVES


def _tokens(scored: Scored | None, i: int, count: int, top: int | None) -> tuple[Token, ...]:
    """The first tokens of entry `i`, with this many alternatives each; none if top is None."""
    if scored is None or top is None:
        return ()
    ids, logps = scored.ids[i, :count].tolist(), scored.logps[i, :count].tolist()
    if not top:
        return tuple(map(Token, ids, logps))
    top_ids = scored.top_ids[i, :count, :top].tolist()
    top_logps = scored.top_logps[i, :count, :top].tolist()
    tops = (tuple(zip(*pair, strict=True)) for pair in zip(top_ids, top_logps, strict=True))
    return tuple(map(Token, ids, logps, tops))
