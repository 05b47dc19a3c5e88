"""A small server that speaks OpenAI's chat completions, and fails on request.

Run as a program it serves on loopback and prints its port. The prompt says what is wanted: the last
line is JSON with `text` (what to answer), `steps` (tokens: [text, logprob, {others}]) and `fail`, a
list of what to do with the first, second, ... request for this prompt: a status, "later" (429 with
Retry-After), "date" (the same as a date), "slow", "garbled", "other" (JSON of another kind),
"empty" (no text), "cut" (the connection). A prompt without such a line is answered with its length.
"""

import argparse
import email.utils
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LATER_S = 0.4
SLOW_S = 3.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[dict] = []  # noqa: RUF012
    lock = threading.Lock()
    now = most = 0  # requests under way, and the most of them there were

    def do_GET(self):
        cls = type(self)
        self.reply(200, {"seen": cls.seen, "most": cls.most})

    def do_POST(self):
        cls = type(self)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with cls.lock:
            cls.now += 1
            cls.most = max(cls.most, cls.now)
            earlier = sum(s["body"]["messages"] == body["messages"] for s in cls.seen)
            cls.seen.append({"body": body, "key": key, "path": self.path, "at": time.time()})
        try:
            self.answer(body, earlier)
        finally:
            with cls.lock:
                cls.now -= 1

    def answer(self, body, earlier):
        prompt = body["messages"][-1]["content"]
        line = prompt.strip().rpartition("\n")[2]
        wish = json.loads(line) if line.startswith("{") else {"text": str(len(prompt))}
        fail = wish.get("fail", [])
        mode = fail[earlier] if earlier < len(fail) else None
        if isinstance(mode, int):
            return self.reply(mode, {"error": {"message": f"no: {mode}"}})
        if mode in ("later", "date"):
            at = email.utils.formatdate(time.time() + 1 + LATER_S, usegmt=True)
            wait = str(LATER_S) if mode == "later" else at
            return self.reply(429, {"error": {"message": "busy"}}, {"Retry-After": wait})
        if mode == "garbled":
            return self.reply(200, '{"choices": [{"mess')
        if mode == "other":
            return self.reply(200, {"choices": []})
        if mode == "cut":
            self.close_connection = True
            return None
        if mode == "slow":
            time.sleep(SLOW_S)
        time.sleep(wish.get("takes", 0))
        text = None if mode == "empty" else wish.get("text", "")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
        choice["message"]["content"] = text
        if body.get("logprobs") and "steps" in wish:
            choice["logprobs"] = {"content": [self.token(*s, body) for s in wish["steps"]]}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 2, "total_tokens": 0}
        return self.reply(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def token(self, text, logprob, others, body):
        shown = list({text: logprob, **others}.items())[: body["top_logprobs"]]
        top = [{"token": t, "logprob": p} for t, p in shown]
        return {"token": text, "logprob": logprob, "top_logprobs": top}

    def reply(self, status, content, headers=None):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # nobody waited for it
            self.close_connection = True

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
