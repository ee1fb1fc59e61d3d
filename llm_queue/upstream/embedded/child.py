"""The engine's process: llama.cpp's HTTP server on a free port of 127.0.0.1, behind a key of its own, with one model.

Run as a script, with five arguments: the model's file, its name, its context size in tokens, the limit of an answer in
tokens for requests that have none of their own (-1: what is left of the context), and the MiB of memory for old
prompts. A sixth is a folder, with the separator at its end, to save the slot in and to restore it from; without it,
neither can be asked. One JSON line on stdout says where it is once it can answer. It ends when stdin does, so it never
outlives the service, however that ends.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys

# libgomp's threads spin between two tasks, by default for so long that a second llama.cpp on the machine starves them.
# Must stand before the library is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import xllamacpp


def main(path: str, name: str, num_ctx: str, answer_tokens: str, cache_mib: str, slots: str = "") -> None:
    """Serve until stdin ends."""
    # Ctrl-C and a service manager's SIGTERM reach us too, but the service is the one that decides: it may be draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    key = secrets.token_urlsafe(32)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}  # else every answer tells the file's whole path
    params.n_ctx = int(num_ctx)
    params.n_predict = int(answer_tokens)
    params.n_parallel = 1
    params.cpuparams.n_threads = max(1, cores - 1)  # a busy neighbour on the last core would stop all of them
    params.cpuparams_batch.n_threads = cores
    params.n_batch = params.n_ubatch = 256  # a hang-up takes effect between two batches of the prompt
    params.cache_ram_mib = int(cache_mib)  # llama.cpp's own default is 8 GiB
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.cors_origins = ""  # llama.cpp's own default lets in every web page
    params.verbosity = 1  # errors
    if slots:
        os.umask(0o077)  # what it writes there are prompts
        params.slot_save_path = slots
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address, "key": key}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)  # no teardown: there is nothing to save, and it could wait
