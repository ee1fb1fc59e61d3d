"""``python -m llm_queue.testing.fake_ollama``: a fake Ollama as a process of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import trio

from llm_queue.testing.fake_ollama.behaviour import DIRECTIVES, Behaviour
from llm_queue.testing.fake_ollama.server import FakeOllama, serve


def main(argv: Sequence[str] | None = None) -> None:
    """Run one until a signal ends it."""
    usual = Behaviour()
    parser = argparse.ArgumentParser(
        prog="python -m llm_queue.testing.fake_ollama",
        description="A fake Ollama. Steer it by what a message begins with:\n\n" + DIRECTIVES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=11434, help="0 takes a free one")
    parser.add_argument("--model", action="append", help="a model that it has; may be given several times")
    for name in (
        "load_seconds",
        "token_seconds",
        "first_token_seconds",
        "close_seconds",
        "keep_alive",
        "prompt_token_seconds",
    ):
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=getattr(usual, name))
    for name in ("max_loaded", "default_num_ctx", "trained", "remembered"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(usual, name))
    parser.add_argument("--kept-prompts", type=int, help="prompts that a runner keeps, and tells of")
    parser.add_argument("--capability", action="append", help="what its models can; may be given several times")
    parser.add_argument("--remote", action="append", help="a model that runs elsewhere; may be given several times")
    parser.add_argument("--signin-url", help="models that run elsewhere are refused with 401 and this address")
    parser.add_argument("--load-error", help="every load ends as 500 with this text")
    given = vars(parser.parse_args(argv))
    port, models, capabilities = given.pop("port"), given.pop("model"), given.pop("capability")
    given |= {"models": models or usual.models, "capabilities": capabilities or usual.capabilities}
    given["remote"] = given["remote"] or []
    fake = FakeOllama(Behaviour(**given))

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            print(f"listening on {await nursery.start(serve, fake, port)}", flush=True)

    try:
        trio.run(run)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
