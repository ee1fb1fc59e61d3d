"""A stand-in for the embedded engine's process: its protocol and a very small model, with the standard library alone.

What it does is the model's name: ``mute`` never says that it is ready, ``garbled`` says something else, ``dies``,
``silent`` and ``no-libgomp`` end at once, ``huge`` takes memory without an end; all others say their name, context size
and what they were asked. A question steers the answer by a word that it holds:

- ``hang``: it has no end, until the caller leaves
- ``die``: it is the process's last
- ``grow``: it takes memory without an end
- ``fail``: it has status 500, and the question as its text
- ``fail, and crash``, ``fail, and stick``: likewise, and then it dies, or does not say whether it works on
- ``deaf``: it goes on when the caller has left, and its connection stays open
- ``busy``: the connection is closed, but the process says that it works on
- ``call``: it is a call of the tool that must be called, or of the only one
- ``stuck``: the connection is closed, but the process does not say whether it works on

With a fifth argument, its slot can be saved and restored: what it was asked last, and how often that went from process
to process; each word is a token. ``remember`` is answered with it. As llama.cpp it dies of a file that was cut,
believes one that was changed, and refuses what is no file of its own or has too many tokens. A question steers that,
too:

- ``unwritable``: it says that it cannot write it
- ``boastful``: it says that it has written more than it has
- ``slow to save``, ``slow to restore``: it does not answer
- ``poison``: the process dies of restoring it
- ``unwelcome``: it refuses to restore it
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATH, NAME, NUM_CTX, ANSWER_TOKENS, OLD_PROMPTS, *SLOTS = sys.argv[1:]
KEY = "the key"
MEGABYTES = 16
"""How fast it grows: every 10 ms by so many."""

working = threading.Event()
stuck = threading.Event()
slot: dict[str, Any] = {"text": "", "moved": 0, "fresh": False}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        while stuck.is_set():
            time.sleep(1)
        there: dict[str, Any] = {"id": 0, "is_processing": working.is_set()}
        if slot["fresh"]:
            there["n_prompt_tokens"] = len(slot["text"].split())
        slots = json.dumps([there]).encode()
        self.send_response(200 if self.path == "/slots" else 404)
        self.send_header("Content-Length", str(len(slots)))
        self.end_headers()
        self.wfile.write(slots)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path in ("/apply-template", "/tokenize"):
            self.count(asked)
            return
        if self.path.startswith("/slots/0?"):
            self.answer(*(save if self.path.endswith("save") else restore)(asked["filename"]))
            return
        question = asked["messages"][-1]["content"]
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.send_error(401)
            return
        if "fail" in question:
            body = json.dumps({"error": {"code": 500, "message": question, "type": "server_error"}}).encode()
            self.send_response(500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if "and stick" in question or "and crash" in question:
                stuck.set()
            self.wfile.write(body)
            if "and crash" in question:
                os._exit(9)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if any(word in question for word in ("die", "hang", "grow", "deaf", "busy", "stuck")):
            self.send_header("Content-Length", "100000")  # so that an end before it is a lost connection
        self.end_headers()
        self.say({"delta": {"role": "assistant", "content": None}})
        if "call" in question:
            self.call(asked["tool_choice"], asked["tools"])
            return
        if question == "remember":
            self.say({"delta": {"content": f"{slot['text']} ({slot['moved']})"}})
        else:
            slot.update(text=question, moved=0, fresh=True)
            said = question.replace("old prompts", f"{OLD_PROMPTS} MiB")
            self.say({"delta": {"content": f"{NAME} at {NUM_CTX}, {ANSWER_TOKENS} tokens: {said}"}})
        if "die" in question:
            self.connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.2)  # as the kernel takes its time with much memory
            os._exit(9)
        if "grow" in question:
            grow()
        if "deaf" in question or "busy" in question:
            working.set()
        if "stuck" in question:
            stuck.set()
        if "deaf" in question:
            time.sleep(600)
        elif any(word in question for word in ("hang", "busy", "stuck")):
            self.rfile.read(1)  # until the caller leaves
        else:
            self.say({"delta": {}, "finish_reason": "stop"})
        self.close_connection = True

    def call(self, choice: Any, tools: list[Any]) -> None:
        name = tools[0]["function"]["name"] if choice == "required" else choice["function"]["name"]
        for piece in ({"name": name, "arguments": '{"at": "sky",'}, {"arguments": ' "times": 2}'}):
            self.say({"delta": {"tool_calls": [{"index": 0, "function": piece}]}})
        self.say({"delta": {}, "finish_reason": "tool_calls"})
        self.close_connection = True

    def count(self, asked: dict[str, Any]) -> None:
        """A prompt is the words of all messages, and each word is a token."""
        if self.path == "/tokenize":
            said: object = {"tokens": list(range(len(asked["content"].split())))}
        else:
            said = {"prompt": " ".join(message["content"] for message in asked["messages"])}
        self.answer(200, said)

    def answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say(self, choice: object) -> None:
        self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def save(name: str) -> tuple[int, object]:
    if "slow to save" in slot["text"]:
        time.sleep(600)
    file = Path(SLOTS[0] + name)
    data = json.dumps(slot | {"moved": slot["moved"] + 1}).encode()
    try:
        file.write_bytes(data[:5] if "unwritable" in slot["text"] else data)
    except OSError:
        return 500, {"error": {"code": 500, "message": "Unable to save slot"}}
    if "unwritable" in slot["text"]:
        return 500, {"error": {"code": 500, "message": "Unable to save slot"}}
    more = 1 if "boastful" in slot["text"] else 0
    return 200, {"n_saved": len(slot["text"].split()), "n_written": len(data) + more}


def restore(name: str) -> tuple[int, object]:
    try:
        data = Path(SLOTS[0] + name).read_text()
    except OSError:
        data = ""
    try:
        found = json.loads(data or "{}")
    except ValueError:
        os._exit(134)
    if "poison" in data:
        os._exit(134)
    if "slow to restore" in data:
        time.sleep(600)
    if not found or "unwelcome" in data or len(found["text"].split()) > int(NUM_CTX):
        return 400, {"error": {"code": 400, "message": "Unable to restore slot", "type": "invalid_request_error"}}
    slot.update(found, fresh=False)
    return 200, {"n_restored": len(slot["text"].split())}


def grow() -> None:
    held = []
    while True:
        held.append(b"x" * (MEGABYTES << 20))
        time.sleep(0.01)


def main() -> None:
    if NAME == "dies":
        print(f"E llama: failed to load model from {PATH}\nE in '/opt/my lib/x.so': no", file=sys.stderr)
        sys.exit("E not in /opt/lib/y.so\nRuntimeError: Failed to init server, please check the input params.")
    if NAME == "no-libgomp":
        sys.exit("ImportError: libgomp.so.1: cannot open shared object file: No such file or directory")
    if NAME == "silent":
        os._exit(3)
    if NAME == "huge":
        grow()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if NAME == "garbled":
        print("hello", flush=True)
    elif NAME != "mute":
        print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "key": KEY}), flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


main()
