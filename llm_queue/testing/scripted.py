"""An upstream in memory that follows a script, keeps Ollama's rules about what is resident, and remembers it all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    ConnectionLost,
    LoadFailed,
    PromptTooLong,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.testing.prompt_cache import PromptCache, words_of
from llm_queue.testing.scripts import Break, Busy, Garble, Hang, Refuse, Say, Script, Stall
from llm_queue.upstream.protocol import NO_SIZES, Model, Native, Size
from llm_queue.wire.prompts import prompt_size
from llm_queue.wire.shapes import (
    ALIVE,
    ChatRequest,
    Completion,
    Delta,
    EmbedRequest,
    LoadRequest,
    Piece,
    Request,
    Sampling,
    TextRequest,
    ToolCall,
    Vectors,
    must_call,
)

# --- what is remembered -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class LoadRecord:
    """One load: asked for by ``load``, or forced by a run whose key was not resident (``implicit``)."""

    key: RunnerKey
    start: float
    implicit: bool = False
    end: float | None = None
    outcome: str = "running"


@dataclass(eq=False)
class RunRecord:
    """One run. ``outcome`` is ``running``, ``done``, ``cancelled``, or the code of the error it raised. A ``remote``
    one neither loads anything nor overlaps with others.
    """

    key: RunnerKey
    request: Request
    start: float
    end: float | None = None
    outcome: str = "running"
    emitted: int = 0
    remote: bool = False


def prompt_of(request: Request) -> str:
    """What a request says last: its last message, its prompt, or its last text to embed."""
    match request:
        case ChatRequest():
            return request.messages[-1].content
        case TextRequest():
            return request.prompt
        case EmbedRequest():
            return request.inputs[-1]
        case LoadRequest():
            return ""


# --- the upstream -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ScriptedUpstream:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`. Seconds are those of trio's clock, so that a test with
    an autojump clock spends none.

    What the next runs do is in :attr:`script`, what the next loads do in :attr:`load_script` (a :class:`Say` there is a
    load that succeeds); when a script has come to its end, runs do :attr:`default` and loads succeed. Where
    :attr:`by_request` is set, it decides for each run instead.

    It never refuses overlapping calls: it counts them. A correct line leaves :attr:`overlaps` empty.
    """

    known: list[Model] = field(default_factory=lambda: [scripted_model("scripted")])
    max_loaded: int = 1
    load_seconds: float = 1.0
    close_seconds: float = 0.0
    """How long it takes to see a cancelled call closed; it is in flight until then."""
    default: Script = field(default_factory=Say)
    by_request: Callable[[Request], Script] | None = None
    script: deque[Script] = field(default_factory=deque)
    load_script: deque[Script] = field(default_factory=deque)

    name: str = "Scripted"
    url: str = "http://scripted.test"
    chooses_context: bool = True
    default_model: str = ""
    more_models: str = "The script names them all."
    native: Native | None = None
    sizes: Mapping[str, Size] = field(default_factory=lambda: NO_SIZES)
    drops: frozenset[str] = frozenset()
    """Sampling fields that :meth:`check` says are left out."""
    bytes_per_token: float | None = None
    """If set, the tokens of each prompt are counted, and one that does not fit into its context is refused."""

    kept_prompts: int | None = None
    """If set, the words of each prompt are its tokens, and so many prompts are kept while their model is loaded."""
    seconds_per_prompt_token: float = 0.0
    """What each token takes that is not found among those."""

    loads: list[LoadRecord] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    requests: list[LoadRecord | RunRecord] = field(default_factory=list)
    """Model work in the order in which it began: loads asked for, and runs."""
    questions: list[str] = field(default_factory=list)
    """Calls that are no model work, by name: models, describe, resident, probe."""
    overlaps: list[tuple[LoadRecord | RunRecord, LoadRecord | RunRecord]] = field(default_factory=list)
    max_in_flight: int = 0

    _in_flight: list[LoadRecord | RunRecord] = field(default_factory=list, init=False)
    _resident: list[RunnerKey] = field(default_factory=list, init=False)
    _crash: trio.Event = field(default_factory=trio.Event, init=False)
    _prompts: dict[RunnerKey, PromptCache] = field(default_factory=dict, init=False)

    def then(self, *scripts: Script) -> None:
        """Add to what the next runs do."""
        self.script.extend(scripts)

    def then_load(self, *scripts: Script) -> None:
        """Add to what the next loads do."""
        self.load_script.extend(scripts)

    @property
    def down(self) -> bool:
        """Switch it to True and the engine dies: nothing is resident, what runs breaks, nothing can be reached."""
        return self._crash.is_set()

    @down.setter
    def down(self, down: bool) -> None:
        if down:
            self._resident.clear()
            self._crash.set()
        elif self.down:
            self._crash = trio.Event()

    @property
    def resident_keys(self) -> list[RunnerKey]:
        """What is loaded, the least recently used first. Set it to play a program that goes past the line."""
        return list(self._resident)

    @resident_keys.setter
    def resident_keys(self, keys: Sequence[RunnerKey]) -> None:
        self._resident = list(keys)

    # --- the protocol ---

    def check(self, request: Request) -> tuple[str, ...]:
        return tuple(name for name in self.drops if name in getattr(request, "sampling", Sampling()).given())

    def unlisted(self, name: str) -> Model | None:
        return remote_model(name) if name.endswith("cloud") else None

    async def models(self) -> list[Model]:
        await self._question("models")
        return [msgspec.structs.replace(model, trained=None, capabilities=frozenset()) for model in self.known]

    async def describe(self, model: Model) -> Model:
        await self._question("describe")
        for known in self.known:
            if known.identity == model.identity:
                return msgspec.structs.replace(model, trained=known.trained, capabilities=known.capabilities)
        raise UpstreamRefused(f"model '{model.name}' not found", status=404)

    async def count_tokens(self, model: Model, request: Request) -> int | None:
        await self._question("count_tokens")
        return None

    async def resident(self) -> frozenset[RunnerKey]:
        await self._question("resident")
        return frozenset(self._resident)

    async def probe(self) -> None:
        await self._question("probe")

    async def load(self, model: Model, num_ctx: int) -> None:
        record = LoadRecord(self._key(model, num_ctx), trio.current_time())
        script = self.load_script.popleft() if self.load_script else Say()
        async with self._call(record):
            match script:
                case Busy():
                    raise UpstreamBusy
                case Hang() | Stall():
                    self._make_room(record.key)
                    await self._pass(math.inf)
                case Break(text=text, after=after) | Refuse(text=text, after=after):
                    self._make_room(record.key)
                    await self._pass(after)
                    raise LoadFailed(text)
                case Garble():
                    raise LoadFailed("the answer to the load is not JSON")
                case Say():
                    await self._make_resident(record)

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        record = RunRecord(self._key(model, num_ctx), request, trio.current_time(), remote=model.remote)
        if self.by_request is not None:
            script = self.by_request(request)
        else:
            script = self.script.popleft() if self.script else self.default

        calls = must_call(request) if isinstance(request, ChatRequest) else ()

        def say(piece: Piece) -> None:
            record.emitted += 1
            emit(ALIVE if calls and isinstance(piece, Delta) and piece.content else piece)

        async with self._call(record):
            if isinstance(script, Busy):
                raise UpstreamBusy
            if isinstance(request, LoadRequest) and request.unload:
                self._resident = [key for key in self._resident if key.model != record.key.model]
                return Completion("unload", finish_text="unload", unloaded=True)
            load_seconds = await self._load_for(record)
            counted = self._count(record)
            prompt = self._find(record)
            match script:
                case Hang():
                    await self._pass(math.inf)
                case Stall(after_tokens=tokens):
                    for number in range(tokens):
                        say(Delta(content=f"token {number} "))
                    await self._pass(math.inf)
                case Refuse(status=status, text=text, after=after):
                    await self._pass(after)
                    raise UpstreamRefused(text, status=status)
                case Break(after_tokens=tokens, text=text, after=after):
                    await self._pass(after)
                    for number in range(tokens):
                        say(Delta(content=f"token {number} "))
                    raise UpstreamBroke(text)
                case Garble():
                    raise UpstreamBroke("the answer is not JSON")
                case Say():
                    await self._pass(script.first_after + ((prompt.prompt_seconds or 0.0) if prompt else 0.0))
                    if isinstance(request, LoadRequest):
                        return Completion("load", load_seconds=load_seconds, finish_text="load")
                    if isinstance(request, EmbedRequest):
                        say(Vectors(tuple((float(len(text)), 1.0) for text in request.inputs)))
                        return Completion("stop", counted or script.prompt_tokens, 0, load_seconds)
                    if script.thinking:
                        say(Delta(thinking=script.thinking))
                    if script.calls:
                        say(Delta(tool_calls=tuple(ToolCall(name) for name in script.calls)))
                    pieces = script.pieces()
                    for piece in pieces:
                        await self._pass(script.seconds_per_token)
                        say(Delta(content=piece))
                    if calls:
                        say(Delta(tool_calls=(ToolCall(calls[0]["function"]["name"], script.text),)))
                    reason = "tool_calls" if calls and script.finish_reason == "stop" else script.finish_reason
                    told = prompt or script.told(counted)
                    return msgspec.structs.replace(
                        told, finish_reason=reason, completion_tokens=len(pieces), load_seconds=load_seconds
                    )
        raise AssertionError("a hang does not end")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    # --- its inside ---

    def _key(self, model: Model, num_ctx: int) -> RunnerKey:
        """Ollama clamps to the trained context, and runs what is asked at that size."""
        trained = next((known.trained for known in self.known if known.identity == model.identity), None)
        return RunnerKey(model.identity, num_ctx if trained is None else min(num_ctx, trained))

    def _count(self, run: RunRecord) -> int | None:
        if self.bytes_per_token is None:
            return None
        tokens, num_ctx = math.ceil(prompt_size(run.request).bytes / self.bytes_per_token), run.key.num_ctx
        if tokens >= num_ctx:
            text = f"request ({tokens} tokens) exceeds the available context size ({num_ctx} tokens)"
            raise PromptTooLong(text, tokens=tokens, maximum=num_ctx)
        return tokens

    def _find(self, run: RunRecord) -> Completion | None:
        """What is told of its prompt where prompts are kept, but for the end."""
        words = words_of(run.request)
        if self.kept_prompts is None or not words:
            return None
        cached = self._prompts.setdefault(run.key, PromptCache(self.kept_prompts)).take(words)
        seconds = self.seconds_per_prompt_token * (len(words) - cached)
        return Completion("stop", len(words), cached_tokens=cached, prompt_seconds=seconds)

    async def _question(self, name: str) -> None:
        self.questions.append(name)
        await trio.lowlevel.checkpoint()
        self._check_up()

    def _check_up(self) -> None:
        if self.down:
            raise UpstreamUnreachable(f"{self.name} cannot be reached: the script has switched it off.")

    async def _pass(self, seconds: float) -> None:
        """Let time pass; the engine may die meanwhile."""
        crash = self._crash
        with trio.move_on_after(seconds):
            await crash.wait()
            raise ConnectionLost("the connection was lost")
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _call(self, record: LoadRecord | RunRecord) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        self._check_up()
        self.requests.append(record)
        if isinstance(record, RunRecord):
            self.runs.append(record)
        else:
            self.loads.append(record)
        if not (isinstance(record, RunRecord) and record.remote):
            self.overlaps.extend((other, record) for other in self._in_flight)
            self._in_flight.append(record)
        self.max_in_flight = max(self.max_in_flight, len(self._in_flight))
        try:
            yield
            record.outcome = "done"
        except (UpstreamError, PromptTooLong) as error:
            record.outcome = error.code
            raise
        except BaseException:
            record.outcome = "cancelled"
            with trio.CancelScope(shield=True):
                await trio.sleep(self.close_seconds)
            raise
        finally:
            record.end = trio.current_time()
            if record in self._in_flight:
                self._in_flight.remove(record)

    async def _load_for(self, run: RunRecord) -> float:
        if run.remote:
            return 0.0
        if run.key in self._resident:
            self._resident.remove(run.key)
            self._resident.append(run.key)
            return 0.0
        load = LoadRecord(run.key, trio.current_time(), implicit=True)
        self.loads.append(load)
        try:
            await self._make_resident(load)
        finally:
            load.end = trio.current_time()
            load.outcome = "done" if run.key in self._resident else "cancelled"
        return load.end - load.start

    async def _make_resident(self, load: LoadRecord) -> None:
        if load.key in self._resident:
            self._resident.remove(load.key)
        else:
            self._make_room(load.key)
            self._prompts.pop(load.key, None)
            await self._pass(self.load_seconds)
        self._resident.append(load.key)

    def _make_room(self, key: RunnerKey) -> None:
        """Ollama evicts before it loads; a load that fails leaves the room empty."""
        self._resident = [other for other in self._resident if other.model != key.model]
        del self._resident[: max(0, len(self._resident) + 1 - self.max_loaded)]


def scripted_model(name: str, *, trained: int | None = 131072) -> Model:
    """A model whose identity follows from its name."""
    return Model(name=name, identity=f"digest-of-{name}", trained=trained, capabilities=frozenset({"completion"}))


def remote_model(name: str) -> Model:
    """A model that runs elsewhere."""
    return Model(name=name, identity=f"digest-of-{name}", remote=True)
