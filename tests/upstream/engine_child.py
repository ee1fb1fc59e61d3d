"""A stand-in for the embedded engine's process: its protocol and a very small model, with the standard library alone.

What it does is the model's name: ``mute`` never says that it is ready, ``garbled`` says something else, ``dies``,
``silent`` and ``no-libgomp`` end at once; all others say their name, context size and what they were asked. A question
that holds the word ``hang`` has an answer without an end, one with ``die`` is the process's last.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH, NAME, NUM_CTX = sys.argv[1:]
KEY = "the key"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.send_error(401)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if "die" in question or "hang" in question:
            self.send_header("Content-Length", "100000")  # so that an end before it is a lost connection
        self.end_headers()
        self.say({"delta": {"role": "assistant", "content": None}})
        self.say({"delta": {"content": f"{NAME} at {NUM_CTX}: {question}"}})
        if "die" in question:
            self.connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.2)  # as the kernel takes its time with much memory
            os._exit(9)
        if "hang" in question:
            self.rfile.read(1)  # until the caller leaves
        else:
            self.say({"delta": {}, "finish_reason": "stop"})
        self.close_connection = True

    def say(self, choice: object) -> None:
        self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def main() -> None:
    if NAME == "dies":
        sys.exit("E llama: failed to load model\nRuntimeError: Failed to init server, please check the input params.")
    if NAME == "no-libgomp":
        sys.exit("ImportError: libgomp.so.1: cannot open shared object file: No such file or directory")
    if NAME == "silent":
        os._exit(3)
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
