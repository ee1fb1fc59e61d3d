"""The server itself: its connections, its routes, and what it has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

import h11
import trio

from llm_queue.testing.fake_ollama.answer import CREATED, ChatAnswer, answer_chat, line_of, plain_vector, vectors_of
from llm_queue.testing.fake_ollama.ask import check, last_user_message, model_of, object_of, runs_elsewhere
from llm_queue.testing.fake_ollama.behaviour import Behaviour, Play, Refusal, read_directives
from llm_queue.testing.fake_ollama.exchange import Exchange, JsonObject
from llm_queue.testing.fake_ollama.runners import Load, Runners, Work, digest_of, tagged

WORK: Final = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
"""What loads a model."""

GOOD_BYE: Final = 1.0
"""Seconds that one who has left may take to read the last words."""


class FakeOllama:
    """The state of one fake server, for looking at from a test in the same process."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.requests: list[Work] = []
        self.questions: Counter[str] = Counter()
        self.changes: list[str] = []
        self.hosts: Counter[str] = Counter()
        self.traceparents: Counter[str] = Counter()
        self.connections = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self._runners = Runners(self.behaviour.max_loaded, self.behaviour.keep_alive, self.behaviour.kept_prompts or 0)
        self._seen: Counter[str] = Counter()

    @property
    def loads(self) -> list[Load]:
        """All loads, in order."""
        return self._runners.loads

    def log(self) -> JsonObject:
        """What ``GET /_fake/log`` answers."""
        return {
            "requests": [asdict(work) for work in self.requests],
            "loads": [asdict(load) for load in self.loads],
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "aborted": sum(work.outcome == "aborted" for work in self.requests),
            "questions": dict(self.questions),
            "hosts": dict(self.hosts),
            "traceparents": dict(self.traceparents),
            "connections": self.connections,
        }

    # --- connections ---

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one connection until either side closes it."""
        self.connections += 1
        exchange = Exchange(stream)
        async with stream:
            try:
                while (request := await exchange.receive()) is not None:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(exchange.watch, nursery.cancel_scope)
                        await self._answer(exchange, *request)
                        nursery.cancel_scope.cancel()
                    if not exchange.next_cycle():
                        return
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                return

    async def _answer(self, exchange: Exchange, head: h11.Request, body: bytes) -> None:
        method, path = head.method.decode(), head.target.decode()
        self.hosts.update(value.decode() for name, value in head.headers if name == b"host")
        self.traceparents.update(value.decode() for name, value in head.headers if name == b"traceparent")
        try:
            try:
                if path in WORK and method == "POST":
                    ask = object_of(body)
                    if path == "/api/generate" and ask.get("prompt"):
                        ask["messages"] = [{"role": "user", "content": ask["prompt"]}]
                    await self._work(exchange, path, ask)
                elif path == "/api/pull":
                    await self._pull(exchange, object_of(body))
                elif path == "/_fake/log":
                    await exchange.whole(200, self.log())
                else:
                    self.questions[path] += 1
                    await exchange.whole(*self._question("GET" if method == "HEAD" else method, path, body))
            except Refusal as refusal:
                await exchange.whole(refusal.status, {"error": refusal.text})
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            exchange.gone = True

    # --- questions ---

    def _question(self, method: str, path: str, body: bytes) -> tuple[int, JsonObject | str]:
        match method, path:
            case "GET", "/":
                return 200, "Ollama is running"
            case "GET", "/api/version":
                return 200, {"version": "0.33.0-fake"}
            case "GET", "/api/tags":
                here, remote = self.behaviour.models, self.behaviour.remote
                return 200, {"models": [self._tag(name) for name in here] + [self._remote_tag(name) for name in remote]}
            case "GET", "/api/ps":
                return 200, {"models": self._resident()}
            case "POST", "/api/show":
                said = object_of(body)
                asked = str(said.get("model") or said.get("name") or "")
                if not asked:
                    raise Refusal(400, "model is required")
                if model_of(self.behaviour, asked) is None:
                    raise Refusal(404, f"model '{tagged(asked)}' not found")
                return 200, {
                    "details": {"format": "gguf", "family": "fake"},
                    "model_info": {"general.architecture": "fake", "fake.context_length": self.behaviour.trained},
                    "capabilities": self.behaviour.capabilities,
                    "modified_at": CREATED,
                }
            case ("POST", "/api/copy") | ("DELETE", "/api/delete"):
                return self._change(method, path, body)
            case "GET" | "POST", _ if path.startswith("/api/blobs/"):
                return self._change(method, path, body)
            case _, "/" | "/api/version" | "/api/tags" | "/api/ps" | "/api/show" | "/api/chat":
                return 405, "405 method not allowed"
            case _:
                return 404, "404 page not found"

    def _tag(self, name: str) -> JsonObject:
        return {
            "name": tagged(name),
            "model": tagged(name),
            "modified_at": CREATED,
            "size": 1,
            "digest": digest_of(name),
            "details": {"format": "gguf", "family": "fake"},
            "capabilities": self.behaviour.capabilities,
        }

    def _remote_tag(self, name: str) -> JsonObject:
        return self._tag(name) | {"remote_model": name, "remote_host": "https://ollama.example:443"}

    def _resident(self) -> list[JsonObject]:
        shown = ("name", "model", "size", "digest", "details")
        return [
            {field: value for field, value in self._tag(name).items() if field in shown}
            | {"context_length": num_ctx, "size_vram": 1, "expires_at": CREATED}
            for name, num_ctx in self._runners.resident().items()
        ]

    # --- model work ---

    async def _work(self, exchange: Exchange, path: str, ask: JsonObject) -> None:
        options = ask.get("options") or {}
        if path == "/api/generate" and ask.get("prompt"):
            ask |= {"messages": [{"role": "user", "content": ask["prompt"]}]}
        work = Work(
            path=path,
            model=str(ask.get("model") or ""),
            num_ctx=options.get("num_ctx", self.behaviour.default_num_ctx),
            prompt=last_user_message(ask),
            keep_alive=ask.get("keep_alive"),
            start=trio.current_time(),
        )
        if runs_elsewhere(self.behaviour, work.model):
            await self._pass_on(exchange, work, ask)
            return
        async with self._in_flight(work, exchange):
            name, keep_alive = check(self.behaviour, work, ask)
            play = self._play(work.prompt)
            if play.refusal is not None:
                raise play.refusal
            if keep_alive == 0 and not (ask.get("messages") or ask.get("input") or ask.get("prompt")):
                self._runners.unload(name)
                await self._only_load(exchange, work, keep_alive)
                return
            self._runners.load_seconds = self.behaviour.load_seconds
            self._runners.load_error = self.behaviour.load_error
            async with self._runners.use(name, work.num_ctx, keep_alive) as load_seconds:
                exchange.farewell = (500, "error reading llama-server response: context canceled")
                if ask.get("messages"):
                    streamed, generate = ask.get("stream") is not False, path == "/api/generate"
                    answer = ChatAnswer(exchange, work.model, streamed=streamed, generate=generate)
                    prompts = None if self.behaviour.kept_prompts is None else self._runners.prompts(name)
                    await answer_chat(answer, ask, play, self.behaviour, work, load_seconds, prompts)
                elif ask.get("input"):
                    await self._embed(exchange, work, ask)
                elif path == "/api/embeddings" and ask.get("prompt"):
                    await exchange.whole(200, {"embedding": plain_vector(ask["prompt"])})
                else:
                    await self._only_load(exchange, work, keep_alive)

    async def _pass_on(self, exchange: Exchange, work: Work, ask: JsonObject) -> None:
        """What another host answers; it takes no runner, and requests do not wait for each other."""
        work.remote = True
        async with self._in_flight(work, exchange):
            if self.behaviour.signin_url is not None:
                await exchange.whole(401, {"error": "unauthorized", "signin_url": self.behaviour.signin_url})
                return
            play = self._play(work.prompt)
            if play.refusal is not None:
                raise play.refusal
            if ask.get("input"):
                await self._embed(exchange, work, ask)
                return
            if not ask.get("messages"):
                await self._only_load(exchange, work, None)
                return
            answer = ChatAnswer(exchange, work.model, streamed=ask.get("stream") is not False)
            await answer_chat(answer, ask, play, self.behaviour, work, 0.0)

    @asynccontextmanager
    async def _in_flight(self, work: Work, exchange: Exchange) -> AsyncIterator[None]:
        def end(outcome: str = "done") -> None:
            if work.end is None:
                work.end = trio.current_time()
                work.outcome = outcome if work.outcome == "running" else work.outcome
                self.in_flight -= not work.remote

        self._forget()
        self.requests.append(work)
        self.in_flight += not work.remote
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        exchange.before_last = end
        exchange.farewell = (499, "request canceled")
        try:
            yield
        except Refusal as refusal:
            end("refused" if refusal.status < 500 else "failed")
            raise
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.behaviour.close_seconds)
            end("aborted")
            if exchange.gone:
                with trio.move_on_after(GOOD_BYE, shield=True):
                    await exchange.say_farewell()
            raise

    def _play(self, prompt: str) -> Play:
        play = read_directives(prompt)
        if not play.once:
            return play
        self._seen[prompt] += 1
        return play.mended() if self._seen[prompt] > 1 else play

    def _forget(self) -> None:
        """Keep what was done long ago out of memory, if so wished."""
        most = self.behaviour.remembered
        for done in (self.requests, self.loads) if most else ():
            if len(done) > 2 * most:
                del done[:-most]

    async def _embed(self, exchange: Exchange, work: Work, ask: JsonObject) -> None:
        inputs = [ask["input"]] if isinstance(ask["input"], str) else ask["input"]
        answer = {"model": work.model, "embeddings": vectors_of(inputs, ask.get("dimensions"))}
        await exchange.whole(200, answer | {"prompt_eval_count": sum(len(text.split()) for text in inputs)})

    async def _only_load(self, exchange: Exchange, work: Work, keep_alive: float | None) -> None:
        if work.path == "/api/embeddings":
            await exchange.whole(200, {"embedding": []})
        elif work.path == "/api/embed":
            await exchange.whole(200, {"model": work.model, "embeddings": []})
        else:
            end = {"done": True, "done_reason": "unload" if keep_alive == 0 else "load"}
            generate = work.path == "/api/generate"
            await exchange.whole(200, line_of(work.model, {"content": ""}, generate=generate) | end)

    # --- changes ---

    async def _pull(self, exchange: Exchange, ask: JsonObject) -> None:
        """Some lines, and the model is there; one called ``endless`` never comes to its end."""
        name = str(ask.get("model") or ask.get("name") or "")
        self.changes.append(f"pull {name}")
        exchange.farewell = (499, "request canceled")
        await exchange.head(200, "application/x-ndjson")
        await exchange.body(b'{"status":"pulling manifest"}\n')
        if name == "endless":
            try:
                await trio.sleep_forever()
            finally:
                self.changes.append(f"gave up {name}")
        self.behaviour.models.append(name)
        await exchange.body(b'{"status":"success"}\n')
        await exchange.end()

    def _change(self, method: str, path: str, body: bytes) -> tuple[int, JsonObject | str]:
        self.changes.append(f"{path.removeprefix('/api/')} {len(body)}")
        if path.startswith("/api/blobs/"):
            return (201, "") if method == "POST" else (404, "")
        ask = object_of(body)
        if path == "/api/delete":
            self.behaviour.models.remove(str(ask["model"]))
        return 200, ""


# --- serving ----------------------------------------------------------------------------------------------------


async def serve(
    fake: FakeOllama, port: int = 0, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve on 127.0.0.1 until cancelled; ``await nursery.start(serve, fake)`` returns the URL."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, fake.handle, listeners)
        task_status.started(url)
