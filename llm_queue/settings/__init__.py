"""Every knob of the service: flags first, then the environment, then the defaults that stand here.

One field is one setting. Its flag and its environment variable follow from its name (``max_waiting``:
``--max-waiting``, ``LLM_QUEUE_MAX_WAITING``), but for the names that the Node ancestor already had. All values are
checked once, here, by the parsers of :mod:`llm_queue.settings.values`; nothing else in the service reads the
environment.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_queue.settings.keys import ApiKey, KeysFile, api_key, contradiction, key_list, keys_file
from llm_queue.settings.values import (
    OLLAMA_PORT,
    ServerUrl,
    alias,
    duration,
    each,
    host_name,
    listen_host,
    number,
    one_of,
    optional_seconds,
    origin,
    ports,
    server_url,
    size,
    switch,
    text,
    whole,
)


class WrongSetting(ValueError):
    """A setting has a value that cannot be. The text names the flag, the variable, and what it takes."""


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    help: str,  # noqa: A002 - argparse's own word for it
    *,
    unit: str = "",
    env: str | None = None,
    flag: str | None = None,
    scale: float = 1,
    secret: bool = False,
    repeatable: bool = False,
) -> Any:
    """``env`` and ``flag`` are the ancestor's names where it had one; ``scale`` turns its unit into ours.

    The value of a ``secret`` is never shown. The flag of a ``repeatable`` list may be given several times.
    """
    metadata = {"parse": parse, "help": help, "unit": unit, "env": env, "flag": flag, "scale": scale, "secret": secret}
    metadata["repeatable"] = repeatable
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked values. Times are in seconds, sizes in bytes, contexts in tokens."""

    # where we listen, and who may call
    host: str | None = _setting(None, listen_host, "address to listen on; unset: 127.0.0.1 and [::1]", env="HOST")
    port: tuple[int, ...] = _setting(
        (11500,), ports, "ports to listen on, comma-separated; 0 takes a free one", env="PORT"
    )
    api_keys: tuple[str, ...] = _setting(
        (), key_list,
        "keys that callers must send, as NAME=KEY or KEY, comma-separated; lane=LANE and share=N may follow each",
        secret=True,
    )  # fmt: skip
    api_keys_file: KeysFile | None = _setting(  # noqa: RUF009 - a field
        None, keys_file, "a file of such keys, one a line, that nobody else may read; it is read once, at the start"
    )
    allow_open: bool = _setting(False, switch, "serve other machines without a key")
    origins: tuple[str, ...] = _setting(
        (), each(origin), "web origins that may call besides extensions and local pages; * for all"
    )
    hosts: tuple[str, ...] = _setting((), each(host_name), "host names that this service is also known by")

    # the engine behind the line
    engine: str = _setting(
        "auto", one_of("auto", "ollama", "embedded", "openai"),
        "auto takes an Ollama that is there, else the embedded engine if it is installed",
    )  # fmt: skip
    ollama_url: ServerUrl | None = _setting(  # noqa: RUF009 - a field
        None,
        server_url(OLLAMA_PORT),
        "where Ollama is; unset: http://localhost:11434",
        env="OLLAMA_URL",
        flag="--ollama-url",
    )
    gguf: str | None = _setting(
        None, text, "model file of the embedded engine, or a folder of them; unset: a small one, fetched once"
    )
    engine_memory: int | None = _setting(
        None, size(64 * 2**20, 2**50),
        "memory that the embedded engine may take, such as 4GiB; unset: what its model needs and 2 GiB", unit="bytes",
    )  # fmt: skip
    engine_cache: int = _setting(
        256 * 2**20, size(0, 2**50),
        "memory in which the embedded engine keeps old prompts, besides the last one; 0: none", unit="bytes",
    )  # fmt: skip
    keep_prompts: int | None = _setting(
        None, size(2**20, 2**50),
        "keep the prompt of each model of the embedded engine over a change of model, in files of at most this size "
        "together, such as 2GiB: prompts on disk, or in memory where there is room; unset: none", unit="bytes",
    )  # fmt: skip
    allow_ollama_admin: bool = _setting(
        False, switch, "let callers change Ollama: pull, push, create, copy and delete models"
    )
    upstream_url: ServerUrl | None = _setting(  # noqa: RUF009 - a field
        None, server_url(), "the OpenAI-compatible server of --engine openai"
    )
    upstream_key: str | None = _setting(None, text, "the key that it asks for", secret=True)
    model: str = _setting(
        "", text, "model for requests that name none; unset: granite4.1:8b of Ollama, elsewhere the first",
        env="OLLAMA_MODEL",
    )  # fmt: skip
    alias: tuple[str, ...] = _setting(
        (), each(alias), "NAME=MODEL: the model that answers to a name that is not there; * in NAME for any text",
        repeatable=True,
    )  # fmt: skip
    num_ctx: int = _setting(
        8192, whole(1, 10_000_000), "context size that every model gets at least", env="OLLAMA_NUM_CTX"
    )
    num_ctx_ceiling: int = _setting(65536, whole(1, 10_000_000), "largest context size that a caller may ask for")
    fit_context: bool = _setting(
        True, switch, "raise a context for a prompt that would not fit, and refuse one that cannot; off: it is cut"
    )
    keep_alive: str = _setting(
        "1h", duration, "how long Ollama keeps a model loaded that nobody asks for; 0: until its answer"
    )

    # limits of one job
    max_attempts: int = _setting(2, whole(1, 10), "attempts per job, the first included", env="LLM_MAX_ATTEMPTS")
    attempt_timeout: float = _setting(
        90.0, number(0.001, 86400), "limit of one attempt; of a stream, to the first token and between two",
        unit="s", env="LLM_TIMEOUT_MS", scale=0.001,
    )  # fmt: skip
    stream_total: float = _setting(600.0, number(0.001, 86400), "limit of one streamed attempt as a whole", unit="s")
    load_timeout: float = _setting(300.0, number(0.001, 86400), "limit of loading a model", unit="s")
    max_wait: float | None = _setting(
        None, optional_seconds, "longest wait in line; callers may set their own", unit="s"
    )
    stall_limit: float = _setting(
        15.0,
        number(0.1, 86400),
        "how long a caller may take nothing of its answer while some of it waits",
        unit="s",
    )
    outage_wait: float = _setting(60.0, number(0, 86400), "how long jobs wait for an upstream that went away", unit="s")
    first_outage_wait: float = _setting(10.0, number(0, 86400), "the same while it has never been seen", unit="s")
    drain_timeout: float = _setting(30.0, number(0, 86400), "how long a shutdown lets queued jobs finish", unit="s")

    # limits of the line
    max_waiting: int = _setting(2000, whole(1, 1_000_000), "jobs waiting at most")
    max_waiting_bytes: int = _setting(256 * 2**20, whole(1, 2**40), "their request bodies at most", unit="bytes")
    max_body: int = _setting(32 * 2**20, whole(1, 2**32), "one request body at most", unit="bytes")
    max_depth: int = _setting(64, whole(4, 500), "nesting of a request body at most")
    max_messages: int = _setting(2000, whole(1, 1_000_000), "messages in one request at most")
    remembered_jobs: int = _setting(1000, whole(0, 1_000_000), "finished jobs that /queue/jobs/ID still knows")

    # who goes next
    lane_burst: int = _setting(
        8, whole(1, 1_000_000), "picks that higher lanes get before a waiting lower one has its own"
    )
    turn_factor: float = _setting(9.0, number(0, 1000), "length of a model's turn, in switch costs")
    switch_wait: float = _setting(20.0, number(0, 86400), "longest turn, unless one switch costs more", unit="s")
    hold: bool = _setting(True, switch, "keep the slot for a program that is about to ask again")

    strands: bool = _setting(True, switch, "give turns to conversations whose prompts the engine still has")

    # the log
    log_format: str = _setting("auto", one_of("auto", "text", "json"), "auto is text on a terminal, json elsewhere")

    otel: str = _setting(
        "auto", one_of("auto", "on", "off"),
        "send spans of jobs to a collector of OpenTelemetry; auto does where OTEL_EXPORTER_OTLP_ENDPOINT names one",
    )  # fmt: skip

    trace: str | None = _setting(
        None, text, "file to record every event of the line in, for llm-queue simulate; overwritten at each start. No "
        "prompts are in it, but client names are",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.engine == "openai" and self.upstream_url is None:
            raise WrongSetting("--engine openai needs --upstream-url (LLM_QUEUE_UPSTREAM_URL): where that server is")
        named = [name for name in ("ollama_url", "upstream_url", "gguf") if getattr(self, name) is not None]
        if self.engine == "auto" and len(named) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in named)
            raise WrongSetting(f"{flags} name an upstream each: give one of them, or say which with --engine")
        if self.num_ctx > self.num_ctx_ceiling:
            raise WrongSetting(
                f"--num-ctx (OLLAMA_NUM_CTX) is {self.num_ctx}, above --num-ctx-ceiling {self.num_ctx_ceiling}: "
                "lower the one or raise the other"
            )
        if (why := contradiction(self.keys)) is not None:
            raise WrongSetting(f"--api-keys (LLM_QUEUE_API_KEYS) and --api-keys-file: {why}")
        if not self.on_loopback and not self.keys and not self.allow_open:
            raise WrongSetting(
                f"HOST={self.host} would let other machines use this GPU without a key: set LLM_QUEUE_API_KEYS "
                "or --api-keys-file, or LLM_QUEUE_ALLOW_OPEN=1 if that is what you want"
            )

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All keys, those of the file last. None: whoever may reach us may call."""
        return (*map(api_key, self.api_keys), *(self.api_keys_file.keys if self.api_keys_file is not None else ()))

    @property
    def aliases(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a name, or a pattern of names, and the model that it stands for."""
        pairs = (one.partition("=") for one in self.alias)
        return tuple((name, model) for name, _, model in pairs)

    @property
    def on_loopback(self) -> bool:
        """True if only programs of this machine can reach us."""
        if self.host is None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Knob:
    """How one setting is called outside: for ``--help``, for messages, and for the documentation."""

    name: str
    flag: str
    env: str
    help: str
    unit: str
    default: Any
    parse: Callable[[str], Any]
    scale: float
    secret: bool
    repeatable: bool

    def read_env(self, raw: str) -> Any:
        """Parse the variable's value, which the ancestor may have had in another unit (LLM_TIMEOUT_MS)."""
        if self.scale == 1:
            return self.parse(raw)
        try:
            return self.parse(str(float(raw) * self.scale))
        except ValueError:
            raise ValueError("takes a number of milliseconds above 0") from None


def knobs() -> list[Knob]:
    """All settings, in the order in which they stand above."""
    return [
        Knob(
            name=field.name,
            flag=field.metadata["flag"] or "--" + field.name.replace("_", "-"),
            env=field.metadata["env"] or "LLM_QUEUE_" + field.name.upper(),
            help=field.metadata["help"],
            unit=field.metadata["unit"],
            default=field.default,
            parse=field.metadata["parse"],
            scale=field.metadata["scale"],
            secret=field.metadata["secret"],
            repeatable=field.metadata["repeatable"],
        )
        for field in dataclasses.fields(Settings)
    ]


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Settings from ``flags`` (field name to raw text, None where not given) over ``environ`` over the defaults.

    An empty variable counts as unset. Raises :class:`WrongSetting`.
    """
    values: dict[str, Any] = {}
    for knob in knobs():
        raw, source, parse = flags.get(knob.name), knob.flag, knob.parse
        if raw is None and _unwrapped(environ.get(knob.env, "")):
            raw, source, parse = environ[knob.env], knob.env, knob.read_env
        if raw is None:
            continue
        try:
            value_text = _unwrapped(raw)
            if not value_text.isprintable():
                raise ValueError("takes one line of text")
            values[knob.name] = parse(value_text)
        except ValueError as error:
            shown = "that value" if knob.secret or "@" in raw else repr(raw)
            raise WrongSetting(f"{source} {error}, not {shown}") from None
    return Settings(**values)


def _unwrapped(raw: str) -> str:
    """A value without what files and shells leave around it: white space, a carriage return, quotes."""
    text = raw.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
