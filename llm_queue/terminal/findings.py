"""What the doctor makes of the facts: each finding with the command that mends it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from llm_queue.processes.connected import HIDDEN, Program
from llm_queue.settings.values import OLLAMA_PORT
from llm_queue.terminal.facts import Facts
from llm_queue.terminal.paper import count, size

Level = Literal["ok", "note", "warning", "error"]

CACHE_RAM: Final = 8192 * 2**20
"""Bytes of old prompts that llama.cpp keeps in memory for each engine, unless it is told otherwise."""

USUAL_MODELS: Final = 3
"""Models that Ollama keeps loaded without a GPU, or for each GPU, unless it is told otherwise."""

FEW: Final = 8
"""Ollama with a shorter queue soon says that it is busy when programs call it past the line."""

_WILDCARDS: Final = ("0.0.0.0", "::", "*", "")  # noqa: S104 - read, not bound
_LOOPBACK: Final = re.compile(r"127\.|::1$|::ffff:127\.")


class Finding(NamedTuple):
    """One thing that was looked at: ``ok``, or worth a ``note``, or to be mended by ``command``."""

    level: Level
    topic: str
    text: str
    command: str | None = None

    @property
    def is_trouble(self) -> bool:
        """True if there is something to mend."""
        return self.level in ("warning", "error")


def findings(facts: Facts) -> list[Finding]:
    """All there is to say, in the order in which it is looked at."""
    rules: tuple[Callable[[Facts], Iterable[Finding]], ...] = (service, addresses, engine, bypass, variables, memory)
    return [finding for rule in rules for finding in rule(facts)]


# --- the service --------------------------------------------------------------------------------------------------


def service(facts: Facts) -> Iterator[Finding]:
    """Whether there is one, and whether it can serve."""
    if facts.queue is None:
        if not facts.listening:
            yield Finding("error", "service", f"No service runs at {facts.url}.", "llm-queue serve")
        elif "asks for a key" in facts.asked:
            yield Finding("error", "service", facts.asked, "export LLM_QUEUE_API_KEYS=KEY")
        return
    away = facts.queue.upstream.away
    if away:
        yield Finding("error", "service", f"A service runs at {facts.url} and cannot serve: {away}", _start(facts))
    else:
        yield Finding("ok", "service", f"A service runs at {facts.url}{_by(facts.service)}.")
    if facts.queue.paused is not None:
        yield Finding("warning", "service", "The line is paused: nothing starts.", "llm-queue resume")


def addresses(facts: Facts) -> Iterator[Finding]:
    """Who has our port, on each loopback address."""
    if facts.queue is None:
        taken = {one.process_id or one.name: (address, one) for address, one in facts.listening.items()}
        for address, one in taken.values():
            if "asks for a key" not in facts.asked:
                yield Finding(
                    "error",
                    "port",
                    f"{_shown(address)}:{facts.port} belongs to {_who(one)}, which is no llm-queue.",
                    f"llm-queue serve --port {facts.port + 1}",
                )
        return
    for address in ("127.0.0.1", "::1") if facts.both_loopbacks else ():
        holder = _holder(facts, address)
        if holder is None:
            yield Finding("note", "port", f"Nobody listens on {_shown(address)}:{facts.port}; localhost leads to both.")
        elif facts.service is not None and holder.process_id != facts.service.process_id:
            yield Finding(
                "warning",
                "port",
                f"{_shown(address)}:{facts.port} belongs to {_who(holder)}: "
                "a program that says localhost may reach that one.",
                f"llm-queue serve --port {facts.port + 1}",
            )
    names = [_shown(address) for address in ("127.0.0.1", "::1") if _holder(facts, address) == facts.service]
    if len(names) == 2:
        yield Finding("ok", "port", f"Port {facts.port} is ours on 127.0.0.1 and [::1].")


def _holder(facts: Facts, address: str) -> Program | None:
    """Who has a loopback address: itself, or all addresses of its family."""
    wildcards = ("0.0.0.0", "*") if "." in address else ("::", "*")  # noqa: S104 - read, not bound
    return next((facts.listening[one] for one in (address, *wildcards) if one in facts.listening), None)


# --- the engine ---------------------------------------------------------------------------------------------------


def engine(facts: Facts) -> Iterator[Finding]:
    """Whether the engine is there, which it is, and what it has loaded."""
    if facts.upstream != "Ollama":
        yield Finding(
            "ok", "engine", f"The line is in front of {facts.upstream} ({facts.upstream_url}), not of Ollama."
        )
        models = facts.queue.models if facts.queue is not None else None
        if models is not None:
            yield _loaded((one.name, one.num_ctx, one.size_bytes) for one in models)
        return
    ollama = facts.ollama
    if ollama is None:
        yield Finding("error", "engine", f"No Ollama answers at {facts.upstream_url}.", _start(facts))
        return
    if ollama.is_a_line:
        text = f"What answers at {facts.upstream_url} is another llm-queue: two lines in a row. One is enough."
        yield Finding("warning", "engine", text, "llm-queue serve --ollama-url URL_OF_OLLAMA")
    yield Finding("ok", "engine", f"Ollama {ollama.version or '(no version)'} answers at {facts.upstream_url}.")
    yield _loaded((one.name, one.context_length, one.size_vram or one.size) for one in ollama.loaded)
    open_to = [one for one in facts.upstream_listening if not _LOOPBACK.match(one)]
    if open_to:
        text = f"Other machines can reach Ollama past the line: it listens on {', '.join(map(_shown, open_to))}."
        yield Finding("note", "engine", text, mend(facts, "OLLAMA_HOST", f"127.0.0.1:{facts.upstream_port}"))


def _loaded(models: Iterable[tuple[str, int | None, int | None]]) -> Finding:
    """What is loaded: names, and where they are known the context in tokens and the size in bytes."""
    known = (
        (name, ", ".join(filter(None, (f"context {context:,}" if context else "", size(taken)))))
        for name, context, taken in models
    )
    said = ", ".join(f"{name} ({facts})" if facts else name for name, facts in known)
    return Finding("ok", "engine", f"It has loaded: {said}." if said else "It has nothing loaded.")


def bypass(facts: Facts) -> Iterator[Finding]:
    """Who is connected to the engine besides the line, and what the line has noticed."""
    sure = facts.service is None or facts.service.process_id is not None
    trouble = False
    for one in facts.connected:
        if facts.queue is not None and one.name == HIDDEN and not sure:
            continue  # that is the service, of another user
        trouble = True
        connections = count(one.sockets, "connection")
        if _is_a_line(one):
            yield Finding(
                "error",
                "bypass",
                f"Two lines in front of one {facts.upstream}: {_who(one)} has {connections} to it as well.",
                f"kill {one.process_id}" if one.process_id else None,
            )
        else:
            yield Finding(
                "warning" if facts.queue is not None else "note",
                "bypass",
                f"{_who(one)} has {connections} to {facts.upstream} past the line. {_instead(facts)}:",
                _rerouted(facts),
            )
    seen = facts.queue.bypass if facts.queue is not None else None
    if seen is not None:
        who = f", by {seen.program}" if seen.program else ""
        text = f"The line has noticed that somebody goes past it: {seen.reason}{who}."
        yield Finding("warning", "bypass", text, _rerouted(facts))
    elif not trouble and facts.queue is not None and facts.upstream_port:
        yield Finding("ok", "bypass", f"Nobody else is connected to {facts.upstream}.")


def _instead(facts: Facts) -> str:
    how = ", or put the line in Ollama's place" if facts.upstream_port == OLLAMA_PORT else ", for Ollama's own clients"
    return f"Give it {facts.url} as the address{how}"


def _rerouted(facts: Facts) -> str:
    """What brings programs to the line: where Ollama has its usual port, no program need be told."""
    if facts.upstream_port == OLLAMA_PORT:
        return "llm-queue service install --take-over"
    return f"export OLLAMA_HOST={facts.url.removeprefix('http://')}"


def _is_a_line(one: Program) -> bool:
    return re.search(r"(^|/)llm[-_]queue(/__main__\.py|/cli\.js)?$", one.name) is not None


# --- its settings -------------------------------------------------------------------------------------------------


def variables(facts: Facts) -> Iterator[Finding]:
    """Settings of Ollama, and of the engines that it starts, at odds with the line."""
    for where, values in facts.variables.items():
        found = [*_at_odds(facts, values)]
        for name, level, text, better in found:
            text = f"{name}={values[name]} ({where}): {text}"
            yield Finding(level, "settings", text, mend(facts, name, better) if better != values[name] else None)
        if not any(level != "note" for _, level, _, _ in found):
            yield Finding("ok", "settings", f"Ollama's settings fit the line ({where}).")


def _at_odds(facts: Facts, values: Mapping[str, str]) -> Iterator[tuple[str, Level, str, str | None]]:
    """The variable, how bad it is, why, and a better value (None: unset)."""
    parallel = _number(values.get("OLLAMA_NUM_PARALLEL"))
    if parallel is not None and parallel > 1:
        yield (
            "OLLAMA_NUM_PARALLEL",
            "warning",
            f"Ollama keeps memory for {parallel} contexts of each model, and the line never uses more than one.",
            "1",
        )
    if _number(values.get("OLLAMA_MAX_LOADED_MODELS")) == 1:
        yield (
            "OLLAMA_MAX_LOADED_MODELS",
            "note",
            "each change of the model is a load, also where memory has room for both.",
            None,
        )
    context = _number(values.get("OLLAMA_CONTEXT_LENGTH"))
    if context and context != facts.num_ctx:
        level: Level = "warning" if facts.connected else "note"
        text = f"the line asks for {facts.num_ctx}, so each program that goes past it makes Ollama load the model anew."
        yield "OLLAMA_CONTEXT_LENGTH", level, text, str(facts.num_ctx)
    if "OLLAMA_KEEP_ALIVE" in values:
        text = "has no effect on what the line loads: --keep-alive says how long that stays."
        yield "OLLAMA_KEEP_ALIVE", "note", text, values["OLLAMA_KEEP_ALIVE"]
    queue = _number(values.get("OLLAMA_MAX_QUEUE"))
    if queue is not None and queue < FEW:
        text = "Ollama soon says that it is busy when others call it past the line, and the line then waits."
        yield "OLLAMA_MAX_QUEUE", "note", text, None
    cache = _number(values.get("LLAMA_ARG_CACHE_RAM"))
    if cache == 0:
        text = "engines keep no prompt but the last, so programs that take turns have theirs read anew each time."
        yield "LLAMA_ARG_CACHE_RAM", "warning", text, None
    for name in sorted(values):
        if name.startswith("LLAMA_ARG_") and name != "LLAMA_ARG_CACHE_RAM":
            yield name, "note", "each engine that Ollama starts reads this too.", values[name]


def memory(facts: Facts) -> Iterator[Finding]:
    """How much memory the engines' caches of prompts may take."""
    ollama = facts.ollama
    if ollama is None or ollama.is_a_line or not facts.variables or not _has_engines(ollama.version):
        return
    values = {name: value for one in facts.variables.values() for name, value in one.items()}
    said = _number(values.get("LLAMA_ARG_CACHE_RAM"))
    if said == 0:
        return
    models = _number(values.get("OLLAMA_MAX_LOADED_MODELS")) or USUAL_MODELS
    better = str(max(256, facts.memory // 2**20 // 4 // models // 256 * 256))
    command = mend(facts, "LLAMA_ARG_CACHE_RAM", better)
    if said is not None and said < 0:
        text = "Each loaded model may keep prompts in memory without a limit (LLAMA_ARG_CACHE_RAM=-1)."
        yield Finding("warning", "memory", text, command)
        return
    each = CACHE_RAM if said is None else said * 2**20
    how = "unless LLAMA_ARG_CACHE_RAM says less" if said is None else f"LLAMA_ARG_CACHE_RAM={said}"
    text = (
        f"Each loaded model may keep prompts of up to {size(each)} in memory ({how}): {size(each * models)} for "
        f"{count(models, 'model')}, and this machine has {size(facts.memory)}."
    )
    if each > facts.memory // 2:
        yield Finding("warning", "memory", text, command)
    elif each * models > facts.memory // 2:  # so it is on most machines with Ollama's own settings
        yield Finding("note", "memory", text, command)
    else:
        yield Finding("ok", "memory", text)


def _has_engines(version: str) -> bool:
    """True for an Ollama whose models run in llama.cpp's own server: from 0.30 on. One built from source is 0.0.0."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and ((int(match[1]), int(match[2])) >= (0, 30) or version == "0.0.0")


# --- words --------------------------------------------------------------------------------------------------------


def mend(facts: Facts, name: str, value: str | None) -> str:
    """The command that gives Ollama another value of a variable, or none, where it is started."""
    if facts.starter in ("system unit", "user unit"):
        of_system = facts.starter == "system unit"
        folder = "/etc/systemd/system" if of_system else "~/.config/systemd/user"
        sudo, control = ("sudo ", "sudo systemctl") if of_system else ("", "systemctl --user")
        line = f'Environment="{name}={value}"' if value is not None else f"UnsetEnvironment={name}"
        # The last of the drop-ins by name wins.
        file = f"{folder}/ollama.service.d/zz-llm-queue-{name.lower().replace('_', '-')}.conf"
        return (
            f"{sudo}mkdir -p {folder}/ollama.service.d && printf '%s\\n' '[Service]' '{line}' | {sudo}tee {file} && "
            f"{control} daemon-reload && {control} restart ollama"
        )
    if facts.platform == "darwin":
        return f"launchctl setenv {name} {value}" if value is not None else f"launchctl unsetenv {name}"
    if facts.platform == "win32":
        return f"setx {name} {value}" if value is not None else f'setx {name} ""'
    return f"{name}={value} ollama serve" if value is not None else f"env -u {name} ollama serve"


def _start(facts: Facts) -> str:
    if facts.platform == "darwin":
        return "open -a Ollama"
    if facts.starter == "system unit":
        return "sudo systemctl start ollama"
    return "systemctl --user start ollama" if facts.starter == "user unit" else "ollama serve"


def _who(one: Program) -> str:
    return one.name if one.process_id is None else f"{one.name} (process {one.process_id})"


def _by(one: Program | None) -> str:
    return f" (process {one.process_id})" if one is not None and one.process_id is not None else ""


def _shown(address: str) -> str:
    if address in _WILDCARDS:
        return "all addresses"
    return f"[{address}]" if ":" in address else address


def _number(value: str | None) -> int | None:
    try:
        return int(value) if value is not None else None
    except ValueError:
        return None
