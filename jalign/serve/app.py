"""The HTTP side of the server: routes, streams, errors, keys. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from jalign.serve.answers import Answer
from jalign.serve.engine import Ticket
from jalign.serve.errors import ApiError
from jalign.serve.fields import Fields
from jalign.serve.schemas import Call, Served, chat_ids, chat_of, completion_of
from jalign.serve.scorers import Scorers
from jalign.serve.types import (
    Completion,
    EngineClosedError,
    Listener,
    Piece,
    QueueFullError,
)

LOG = logging.getLogger(__name__)

LARGEST_BODY = 16 << 20  # bytes
RETRY_AFTER_S = 1  # what a client is told when the queue is full
GONE = 499  # what nginx logs for a client that has closed the connection; nobody reads it

Read = Callable[[object, Served], Call]
Arrival = tuple[int, Piece]
"""The index of a response and what is new of it."""


class App:
    """Handlers of the endpoints.

    Args:
      served: the engine and the encodings of its models.
      scorers: what /v1/score answers with.
      keys: of whoever may ask; empty: anybody.
    """

    def __init__(self, served: Served, scorers: Scorers, keys: Collection[str] = ()):
        self._served, self._scorers = served, scorers
        self._keys = [key.encode() for key in keys]

    def asgi(self) -> Starlette:
        """The application that an ASGI server runs."""
        posts = {
            "/v1/completions": partial(self._generate, completion_of),
            "/v1/chat/completions": partial(self._generate, chat_of),
            "/v1/score": self._score,
            "/tokenize": self._tokenize,
        }
        routes = [Route(p, self._guarded(f), methods=["POST"]) for p, f in posts.items()]
        routes.append(Route("/v1/models", self._guarded(self._models), methods=["GET"]))
        routes.append(Route("/health", self._health, methods=["GET"]))
        handlers: dict[Any, Any] = {HTTPException: _http_error}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]):
        """The endpoint for those with a key, with its errors as OpenAI's objects."""

        async def handle(request: Request) -> Response:
            try:
                self._check_key(request)
                return await endpoint(request)
            except ApiError as error:
                return _failed(error)
            except QueueFullError as error:
                full = ApiError(429, str(error), code="rate_limit_exceeded", kind="requests")
                return _failed(full, {"Retry-After": str(RETRY_AFTER_S)})
            except ClientDisconnect:
                return Response(status_code=GONE)
            except Exception as error:
                LOG.exception("%s failed", request.url.path)
                return _failed(_server_error(error))

        return handle

    def _check_key(self, request: Request) -> None:
        if not self._keys:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        # All of them, in constant time: how long it takes tells nothing of a key.
        if not any([hmac.compare_digest(given, key) for key in self._keys]):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")

    # ---- endpoints

    async def _models(self, request: Request) -> Response:
        batches = self._served.engine.batches
        entries = [{"id": name, "max_model_len": b.max_len} for name, b in batches.items()]
        entries += [{"id": name} for name in self._scorers.names if name not in batches]
        common = {"object": "model", "created": 0, "owned_by": "jalign"}
        return JSONResponse({"object": "list", "data": [entry | common for entry in entries]})

    async def _health(self, request: Request) -> Response:
        engine = self._served.engine
        running = sum(batch.running for batch in engine.batches.values())
        state = {"status": "ok", "running": running, "waiting": engine.waiting}
        if not engine.alive:
            return JSONResponse(state | {"status": "stopped"}, status_code=503)
        return JSONResponse(state)

    async def _tokenize(self, request: Request) -> Response:
        fields = Fields(await _body(request))
        name = self._served.model(fields.text("model"))
        encoding = self._served.encodings[name]
        text = fields.text("prompt")
        if text is None:
            ids = chat_ids(fields, encoding)
        else:
            special = fields.flag("add_special_tokens", True)
            ids = encoding.text(text, special=special)
        fields.finish()
        batch = self._served.engine.batch_of(name)
        return JSONResponse(
            {"tokens": list(ids), "count": len(ids), "max_model_len": batch.max_len}
        )

    async def _score(self, request: Request) -> Response:
        job = self._scorers.read(await _body(request))
        future = self._served.engine.run(job)
        return JSONResponse(await asyncio.wrap_future(future))

    async def _generate(self, read: Read, request: Request) -> Response:
        # In a thread: a long text takes a while to tokenize, and streams are to go on.
        call = await asyncio.to_thread(read, await _body(request), self._served)
        pieces: asyncio.Queue[Arrival] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        ticket = self._submit(call, lambda i, piece: _put(loop, pieces, (i, piece)))
        answer = Answer(call)
        arriving = _until_gone(request, _arriving(pieces, len(call.requests)), ticket.cancel)
        if call.stream:
            # The first piece before the status: an error has one of its own.
            first = await anext(arriving)
            if first[1].error is not None:
                await arriving.aclose()
                raise first[1].error
            events = _events(call, answer, first, arriving)
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        completions = [Completion() for _ in call.requests]
        async for i, piece in arriving:
            if piece.error is not None:
                await arriving.aclose()
                raise piece.error
            completions[i].add(piece)
        return JSONResponse(answer.complete(completions))

    def _submit(self, call: Call, listen: Listener) -> Ticket:
        try:
            return self._served.engine.submit(call.requests, listen)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except EngineClosedError as error:
            raise ApiError(503, str(error), kind="server_error") from error


async def _arriving(
    pieces: asyncio.Queue[Arrival], responses: int
) -> AsyncGenerator[Arrival, None]:
    """The pieces of this many responses, until all have ended."""
    while responses:
        i, piece = await pieces.get()
        responses -= piece.finish is not None
        yield i, piece


async def _until_gone(
    request: Request, arriving: AsyncGenerator[Arrival, None], cancel: Callable[[], None]
) -> AsyncGenerator[Arrival, None]:
    """What arrives, until the client has closed the connection; then, or at the end, cancel.

    Raises:
      ClientDisconnect: the client has gone.
    """
    gone = asyncio.ensure_future(_gone(request))
    try:
        while True:
            following = asyncio.ensure_future(_following(arriving))
            await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                raise ClientDisconnect
            if (item := following.result()) is None:
                return
            yield item
    finally:
        gone.cancel()
        cancel()


async def _following(arriving: AsyncGenerator[Arrival, None]) -> Arrival | None:
    return await anext(arriving, None)


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(
    call: Call, answer: Answer, first: Arrival, arriving: AsyncGenerator[Arrival, None]
) -> AsyncIterator[str]:
    """Server-sent events of a stream."""
    try:
        for chunk in answer.opening():
            yield _event(chunk)
        if chunk := answer.chunk(*first):
            yield _event(chunk)
        async for i, piece in arriving:
            if piece.error is not None:
                yield _event(_server_error(piece.error).body())
                return
            if chunk := answer.chunk(i, piece):
                yield _event(chunk)
        if call.include_usage:
            yield _event(answer.usage_chunk())
        yield "data: [DONE]\n\n"
    except ClientDisconnect:
        return
    finally:
        await arriving.aclose()


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _put(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Arrival], item: Arrival) -> None:
    loop.call_soon_threadsafe(pieces.put_nowait, item)


async def _body(request: Request) -> object:
    """The JSON of a request.

    Raises:
      ApiError: it is too large, or no JSON.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise ApiError(413, f"a body may have {LARGEST_BODY} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error


def _server_error(error: Exception) -> ApiError:
    return ApiError(500, f"{type(error).__name__}: {error}", kind="server_error")


def _failed(error: ApiError, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    text = f"{request.method} {request.url.path}: {error.detail}"
    return _failed(ApiError(error.status_code, text), dict(error.headers or {}))
