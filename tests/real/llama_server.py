"""The command line of llama-server, as far as Ollama uses it, over the llama.cpp in the xllamacpp wheel.

``install_ollama`` puts it where Ollama looks for its engine. What it does not know it ignores.
"""

from __future__ import annotations

import argparse
import os
import signal

# Read when libgomp is loaded: by default its threads spin for so long that they starve a busy neighbour, and it them.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import xllamacpp

FLAGS = {
    "--port": ("port", int),
    "-c": ("n_ctx", int),
    "-np": ("n_parallel", int),
    "-b": ("n_batch", int),
    "-ub": ("n_ubatch", int),
    "--keep": ("n_keep", int),
    "--chat-template": ("chat_template", str),
}
SAMPLING = {"--temp": ("temp", float), "--seed": ("seed", int)}
SWITCHES = {
    "--embedding": ("embedding", True),
    "--context-shift": ("ctx_shift", True),
    "--no-jinja": ("use_jinja", False),
}


def main() -> None:
    """Serve one model until a signal ends it, as Ollama ends its engines."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    for flag, (name, kind) in (*FLAGS.items(), *SAMPLING.items()):
        parser.add_argument(flag, dest=name, type=kind)
    for flag, (name, value) in SWITCHES.items():
        parser.add_argument(flag, dest=name, action="store_const", const=value)
    given, _ = parser.parse_known_args()

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.hostnames = [given.host]
    params.cpuparams.n_threads = max(1, cores - 1)  # a busy neighbour on the last core would stop all of them
    params.cpuparams_batch.n_threads = cores
    for name, _ in (*FLAGS.values(), *SWITCHES.values()):
        if (value := getattr(given, name)) is not None:
            setattr(params, name, value)

    for name, _ in SAMPLING.values():
        if (value := getattr(given, name)) is not None:
            setattr(params.sampling, name, value)

    if (old_prompts := os.environ.get("LLAMA_ARG_CACHE_RAM")) is not None:  # as llama-server reads it, in MiB
        params.cache_ram_mib = int(old_prompts)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # nothing is to be saved, and a teardown could wait
    server = xllamacpp.Server(params)
    while server:
        signal.pause()


if __name__ == "__main__":
    main()
