"""The engine answers each request as if it were alone, whatever shares the device with it."""

import queue
import threading
from dataclasses import replace

import numpy as np
import pytest

import jalign
from jalign.rollout import slots
from jalign.serve.engine import Engine
from jalign.serve.types import EngineClosedError, QueueFullError, Request
from tests.serve._policy import LIMITS, embedded_policy

TEXTS = ["Once upon a time there was a", "Lily had", "The dog and the cat", "One day Tom"]


@pytest.fixture(scope="module")
def policy():
    return embedded_policy()


@pytest.fixture(scope="module")
def engine(policy):
    with Engine({"story": policy}, LIMITS) as engine:
        yield engine


@pytest.fixture(scope="module")
def prompts(policy):
    return [tuple(policy.tokenizer(text)["input_ids"]) for text in TEXTS]


def ids(completion):
    return [token.id for token in completion.tokens]


def test_a_response_is_the_same_alone_and_among_others(engine, prompts):
    mixed = [
        Request(
            prompt=prompts[i % 4],
            max_tokens=3 + 5 * (i % 5),
            temperature=(0, 0.7, 1.3)[i % 3],
            top_k=(None, 5)[i % 2],
            top_p=(1.0, 0.9)[i % 2],
            min_p=(0.0, 0.02)[i // 2 % 2],
            seed=i,
            stop=((), ("was", "."))[i // 3 % 2],
            top_logprobs=(0, 1, 3)[i % 3],
            prompt_logprobs=(None, 0, 2)[i // 2 % 3],
        )
        for i in range(24)
    ]
    together = engine.complete(mixed)
    for i in (0, 5, 11, 16, 23):
        assert engine.complete([mixed[i]]) == [together[i]]


def test_logps_of_prompt_and_response_are_those_of_the_scorer(engine, policy, prompts):
    request = Request(prompt=prompts[0], max_tokens=20, temperature=0.8, seed=4, prompt_logprobs=0)
    done = engine.complete([request])[0]
    text = policy.tokenizer.decode([*prompts[0][1:], *ids(done)])
    scored = jalign.score(policy, [{"prompt": "", "completion": text}])
    (logps,), (mask,) = scored.token_logps[0], scored.mask[0]
    want = [t.logp for t in (*done.prompt, *done.tokens)][1:]
    np.testing.assert_allclose(logps[mask][: len(want)], want, atol=1e-5)
    assert done.prompt[0].logp is None


def test_a_prompt_is_scored_without_a_response(engine, prompts):
    request = Request(prompt=prompts[0], max_tokens=0, prompt_logprobs=2)
    done = engine.complete([request])[0]
    assert (done.text, done.tokens, done.finish) == ("", [], "length")
    assert [t.id for t in done.prompt] == list(prompts[0])
    for token in done.prompt[1:]:
        (first, logp), (_, second) = token.top
        assert logp > second
        assert (token.id == first) == (token.logp == logp)


def test_alternatives_are_the_most_probable_tokens(engine, prompts):
    request = Request(prompt=prompts[1], max_tokens=5, temperature=0, top_logprobs=20)
    for token in engine.complete([request])[0].tokens:
        tokens, logps = zip(*token.top, strict=True)
        assert (tokens[0], logps[0]) == (token.id, token.logp)
        assert list(logps) == sorted(logps, reverse=True) and len(set(tokens)) == 20
        assert sum(np.exp(logps)) < 1


def test_every_row_keeps_its_own_settings(engine, prompts):
    hot = Request(prompt=prompts[0], max_tokens=12, temperature=1.5, seed=1)
    greedy = Request(prompt=prompts[0], max_tokens=12, temperature=0)
    one = Request(prompt=prompts[0], max_tokens=12, temperature=1.5, top_k=1, seed=2)
    narrow = Request(prompt=prompts[0], max_tokens=7, temperature=1.5, top_p=1e-6, seed=3)
    a, b, c, d = engine.complete([hot, greedy, one, narrow])
    assert ids(a) != ids(b) == ids(c)
    assert ids(d) == ids(b)[:7]


def test_seeds_repeat_a_response_and_indices_tell_samples_apart(engine, prompts):
    request = Request(prompt=prompts[0], max_tokens=12, seed=7)
    second = Request(prompt=prompts[0], max_tokens=12, seed=7, index=1)
    free = Request(prompt=prompts[0], max_tokens=12)
    a, b, c, d, e = engine.complete([request, second, free, free, request])
    assert ids(a) == ids(e)
    assert len({tuple(ids(x)) for x in (a, b, c, d)}) == 4


def test_a_stop_string_ends_the_response_and_is_left_out(engine, prompts):
    plain = Request(prompt=prompts[0], max_tokens=40, temperature=0)
    stopped = Request(prompt=prompts[0], max_tokens=40, temperature=0, stop=("nothing", "to play"))
    a, b = engine.complete([plain, stopped])
    assert b.text == a.text[: a.text.index("to play")]
    assert b.finish == "stop"
    assert ids(b) == ids(a)[: len(b.tokens)]
    assert "to play" in engine.batch_of(None).policy.tokenizer.decode(ids(b))


def test_an_eos_ends_a_response_unless_it_is_ignored(engine, policy, prompts):
    on = Request(prompt=prompts[0], max_tokens=20, temperature=0, ignore_eos=True)
    eleventh = ids(engine.complete([on])[0])[10]
    tokenizer = embedded_policy().tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eleventh)
    ending = replace(policy, tokenizer=tokenizer)
    with Engine({"story": ending}, LIMITS) as engine:
        a, b = engine.complete([replace(on, ignore_eos=False), on])
    assert a.finish == "stop" and ids(a)[-1] == eleventh
    assert b.finish == "length" and ids(b)[: len(a.tokens)] == ids(a)
    assert b.text.startswith(a.text) and len(a.tokens) <= 11


def test_a_stream_adds_up_to_the_response(engine, prompts):
    request = Request(prompt=prompts[2], max_tokens=30, temperature=0.9, seed=8, stop=("xyz",))
    pieces = list(engine.stream(request))
    (done,) = engine.complete([request])
    assert len(pieces) > 5
    assert "".join(p.text for p in pieces) == done.text
    assert [t for p in pieces for t in p.tokens] == done.tokens
    assert [p.finish for p in pieces] == [None] * (len(pieces) - 1) + [done.finish]


def test_a_canceled_request_gives_its_row_to_the_next(engine, prompts):
    ended = queue.SimpleQueue()
    started = threading.Event()

    def listen(i, piece):
        started.set()
        if piece.finish:
            ended.put((i, piece.finish))

    long = [Request(prompt=prompts[0], max_tokens=100, ignore_eos=True) for _ in range(3)]
    first = engine.submit(long[:1], listen)
    started.wait()
    engine.submit(long[1:], lambda i, piece: listen(i + 1, piece))
    engine.submit([Request(prompt=prompts[1], max_tokens=2)], lambda i, p: listen(3, p))
    first.cancel()
    order = [ended.get(timeout=60) for _ in range(4)]
    assert order[0] == (0, "canceled")
    assert order[1][0] == 3, "the one that waited ends before the long ones"
    assert engine.batch_of(None).running == engine.waiting == 0


def test_closing_a_stream_cancels_its_request(engine, prompts):
    stream = engine.stream(Request(prompt=prompts[0], max_tokens=100, ignore_eos=True))
    next(stream)
    stream.close()
    engine.complete([Request(prompt=prompts[0], max_tokens=3)])
    assert engine.batch_of(None).running == 0


def test_a_full_queue_takes_nothing_of_a_call_that_does_not_fit(policy, prompts):
    engine = Engine({"story": policy}, replace(LIMITS, queue=3))  # not started
    request = Request(prompt=prompts[0], max_tokens=3)
    engine.submit([request, request], lambda i, piece: None)
    with pytest.raises(QueueFullError, match="2 requests wait"):
        engine.submit([request, request], lambda i, piece: None)
    assert engine.waiting == 2
    with pytest.raises(ValueError, match="4 responses at once, and 3 may wait"):
        engine.submit([request] * 4, lambda i, piece: None)


def test_more_requests_than_the_queue_holds_complete_in_turn(policy, prompts):
    requests = [Request(prompt=p, max_tokens=2, temperature=0) for p in prompts]
    with Engine({"story": policy}, replace(LIMITS, queue=3)) as engine:
        got = engine.complete([*requests, *requests])
    assert got[:4] == got[4:]
    with pytest.raises(EngineClosedError):
        engine.complete(requests[:1])


def test_after_a_failed_call_the_next_request_is_answered(engine, prompts, monkeypatch, caplog):
    request = Request(prompt=prompts[0], max_tokens=9, temperature=0)
    (want,) = engine.complete([request])
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(slots, "advance", lambda *_, **__: _fail())
        engine.complete([request])
    assert engine.complete([request]) == [want]
    assert "a call of the model failed" in caplog.text


def _fail():
    raise RuntimeError("out of memory")


def test_a_listener_that_fails_stops_nobody_else(engine, prompts, caplog):
    request = Request(prompt=prompts[0], max_tokens=30, temperature=0)
    engine.submit([request], lambda i, piece: _fail())
    assert engine.complete([request])[0].finish == "length"
    assert "its request is dropped" in caplog.text


def test_a_job_runs_on_the_thread_of_the_device(engine):
    assert engine.run(lambda: threading.current_thread().name).result() == "jalign engine"
    with pytest.raises(ZeroDivisionError):
        engine.run(lambda: 1 / 0).result()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": ()}, "at least one token"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"min_p": 1.0}, "min_p"),
        ({"stop": ("",)}, "empty stop string"),
        ({"top_logprobs": 21}, r"top_logprobs must be in \[0, 20\]"),
        ({"max_tokens": 119}, "at most 120 tokens fit, and the prompt has 2 beside the 119"),
        ({"prompt": (1, 2048), "max_tokens": 1}, "tokens 0 to 2047, got 2048"),
        ({"model": "stori"}, "no model 'stori'; did you mean 'story'"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(engine, change, message):
    with pytest.raises(ValueError, match=message):
        engine.complete([Request(**({"prompt": (1, 300)} | change))])
