"""A judge behind a server whose answers follow from what it is asked."""

import re
import threading
import time
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.rewards._server import Handler

PAIR = re.compile(r"Response 1:\n(.*?)\n\nResponse 2:\n(.*?)\n\nNumber of", re.S)


def prefers_longer(prompt):
    """The number of the longer response, with a probability of 0.9."""
    first, second = PAIR.search(prompt).groups()
    better, worse = ("1", "2") if len(first) > len(second) else ("2", "1")
    return better, [[better, -0.105361, {worse: -2.302585}]]


@contextmanager
def serve(answer, takes_s=0.0):
    """`(base URL, prompts that were asked)`; `answer(prompt)` gives a text and its tokens."""
    asked = []

    class Judge(Handler):
        seen: list = []  # noqa: RUF012
        lock = threading.Lock()

        def answer(self, body, earlier):
            prompt = body["messages"][-1]["content"]
            time.sleep(takes_s)
            text, steps = answer(prompt)
            choice = {"index": 0, "finish_reason": "stop"}
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [self.token(*s, body) for s in steps]}
            asked.append(prompt)
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            content = {"object": "chat.completion", "choices": [choice], "usage": usage}
            self.reply(200, content)

    with served(Judge) as url:
        yield url, asked


@contextmanager
def served(handler):
    """The base URL of a server of these requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *of: None  # who asked may have been killed
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
