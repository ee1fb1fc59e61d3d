"""A program that asks in a closed loop, in a process of its own, as programs are. Prints what it saw as JSON."""

from __future__ import annotations

import argparse
import json
import time

import httpx

PROMPT = "You classify job postings. Posting {number}: a bakery looks for somebody who gets up early. Answer briefly."
TOKENS = 20


def main() -> None:
    """Ask until the time is up; an answer that comes later does not count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--native", action="store_true", help="Ollama's own dialect")
    parser.add_argument("--model", required=True)
    parser.add_argument("--num-ctx", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two requests; 0: a closed loop")
    parser.add_argument("--priority", action="store_true")
    given = parser.parse_args()
    waits: list[float] = []
    errors = 0
    begun = time.monotonic()
    with httpx.Client(base_url=given.url, timeout=120, trust_env=False) as client:
        number = 0
        while (asked := time.monotonic()) < begun + given.seconds:
            number += 1
            path, body = request(given, number)
            answer = client.post(path, json=body)
            took = time.monotonic() - asked
            errors += answer.status_code != 200
            if asked + took <= begun + given.seconds:
                waits.append(took)
            if given.every:
                time.sleep(max(0.0, min(asked + given.every, begun + given.seconds) - time.monotonic()))
    print(json.dumps({"waits": waits, "errors": errors}))


def request(given: argparse.Namespace, number: int) -> tuple[str, dict[str, object]]:
    """Where to and what."""
    messages = [{"role": "user", "content": PROMPT.format(number=number)}]
    if given.native:
        options = {"num_ctx": given.num_ctx, "num_predict": TOKENS, "temperature": 0}
        return "/api/chat", {"model": given.model, "messages": messages, "options": options, "stream": False}
    body: dict[str, object] = {"model": given.model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    return "/v1/chat/completions", body | {"numCtx": given.num_ctx} | ({"priority": True} if given.priority else {})


if __name__ == "__main__":
    main()
