"""Every knob of the service: flags first, then the environment, then the defaults that stand here.

One field is one setting. Its flag and its environment variable follow from its name (``max_waiting``:
``--max-waiting``, ``LLM_QUEUE_MAX_WAITING``), but for the names that the Node ancestor already had. All values are
checked once, here; nothing else in the service reads the environment.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit


class WrongSetting(ValueError):
    """A setting has a value that cannot be. The text names the flag, the variable, and what it takes."""


def _text(raw: str) -> str:
    return raw


def _switch(raw: str) -> bool:
    try:
        return {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }[raw.strip().lower()]
    except KeyError:
        raise ValueError("takes on or off") from None


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"takes a whole number from {least} to {most}")
        return value

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"takes a number from {least:g} to {most:g}")
        return value

    return parse


_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?) *(?:([kmgt])(i?b)?|b|bytes)?", re.IGNORECASE)


def _size(least: int, most: int) -> Callable[[str], int]:
    """A size in bytes, or with a unit: G and GiB are 2^30 bytes, GB is 10^9."""

    def parse(raw: str) -> int:
        match = _SIZE.fullmatch(raw.strip())
        value = 0.0
        if match is not None:
            base = 1000 if (match[3] or "").lower() == "b" else 1024
            value = float(match[1]) * base ** " kmgt".index((match[2] or " ").lower())
        if not least <= value <= most:
            raise ValueError(f"takes a size from {least // 2**20} MiB, such as 4GiB or 4294967296 (bytes)")
        return int(value)

    return parse


def _optional_seconds(raw: str) -> float | None:
    return None if raw.strip().lower() in ("", "none") else _number(0, 86400)(raw)


def _names(raw: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in raw.split(",") if name.strip())


def _http_url(raw: str) -> str:
    url = raw.strip()
    if "://" not in url:
        url = "http://" + url
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("takes an address such as http://localhost:11434") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("takes an address such as http://localhost:11434")
    return url.rstrip("/")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError("takes " + " or ".join(choices))
        return raw

    return parse


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
) -> Any:
    """``env`` and ``flag`` are the ancestor's names where it had one; ``scale`` turns its unit into ours.

    The value of a ``secret`` is never shown.
    """
    metadata = {"parse": parse, "help": help, "unit": unit, "env": env, "flag": flag, "scale": scale, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked values. Times are in seconds, sizes in bytes, contexts in tokens."""

    # where we listen, and who may call
    host: str | None = _setting(None, _text, "address to listen on; unset: 127.0.0.1 and [::1]", env="HOST")
    port: int = _setting(11500, _whole(0, 65535), "port to listen on; 0 takes a free one", env="PORT")
    api_keys: tuple[str, ...] = _setting(
        (), _names, "keys that callers must send, as NAME=KEY or KEY, comma-separated", secret=True
    )
    allow_open: bool = _setting(False, _switch, "serve other machines without a key")
    origins: tuple[str, ...] = _setting(
        (), _names, "web origins that may call besides extensions and local pages; * for all"
    )
    hosts: tuple[str, ...] = _setting((), _names, "host names that this service is also known by")

    # the engine behind the line
    engine: str = _setting(
        "auto", _one_of("auto", "ollama", "embedded", "openai"),
        "auto takes an Ollama that is there, else the embedded engine if it is installed",
    )  # fmt: skip
    ollama_url: str | None = _setting(
        None, _http_url, "where Ollama is; unset: http://localhost:11434", env="OLLAMA_URL", flag="--ollama-url"
    )
    gguf: str | None = _setting(
        None, _text, "model file of the embedded engine, or a folder of them; unset: a small one, fetched once"
    )
    engine_memory: int | None = _setting(
        None, _size(64 * 2**20, 2**50),
        "memory that the embedded engine may take, such as 4GiB; unset: what its model needs and 2 GiB", unit="bytes",
    )  # fmt: skip
    upstream_url: str | None = _setting(None, _http_url, "the OpenAI-compatible server of --engine openai")
    upstream_key: str | None = _setting(None, _text, "the key that it asks for", secret=True)
    model: str = _setting(
        "", _text, "model for requests that name none; unset: granite4.1:8b of Ollama, elsewhere the first",
        env="OLLAMA_MODEL",
    )  # fmt: skip
    num_ctx: int = _setting(
        8192, _whole(1, 10_000_000), "context size that every model gets at least", env="OLLAMA_NUM_CTX"
    )
    num_ctx_ceiling: int = _setting(65536, _whole(1, 10_000_000), "largest context size that a caller may ask for")
    keep_alive: str = _setting("1h", _text, "how long Ollama keeps a model loaded that nobody asks for")

    # limits of one job
    max_attempts: int = _setting(2, _whole(1, 10), "attempts per job, the first included", env="LLM_MAX_ATTEMPTS")
    attempt_timeout: float = _setting(
        90.0, _number(0.001, 86400), "limit of one attempt; of a stream, to the first token and between two",
        unit="s", env="LLM_TIMEOUT_MS", scale=0.001,
    )  # fmt: skip
    stream_total: float = _setting(600.0, _number(0.001, 86400), "limit of one streamed attempt as a whole", unit="s")
    load_timeout: float = _setting(300.0, _number(0.001, 86400), "limit of loading a model", unit="s")
    max_wait: float | None = _setting(
        None, _optional_seconds, "longest wait in line; callers may set their own", unit="s"
    )
    stall_limit: float = _setting(
        15.0, _number(0.1, 86400), "how long a caller may take nothing of its answer while some of it waits", unit="s"
    )
    outage_wait: float = _setting(
        60.0, _number(0, 86400), "how long jobs wait for an upstream that went away", unit="s"
    )
    first_outage_wait: float = _setting(10.0, _number(0, 86400), "the same while it has never been seen", unit="s")
    drain_timeout: float = _setting(30.0, _number(0, 86400), "how long a shutdown lets queued jobs finish", unit="s")

    # limits of the line
    max_waiting: int = _setting(2000, _whole(1, 1_000_000), "jobs waiting at most")
    max_waiting_bytes: int = _setting(256 * 2**20, _whole(1, 2**40), "their request bodies at most", unit="bytes")
    max_body: int = _setting(32 * 2**20, _whole(1, 2**32), "one request body at most", unit="bytes")
    max_depth: int = _setting(64, _whole(4, 500), "nesting of a request body at most")
    max_messages: int = _setting(2000, _whole(1, 1_000_000), "messages in one request at most")
    remembered_jobs: int = _setting(1000, _whole(0, 1_000_000), "finished jobs that /queue/jobs/ID still knows")

    # who goes next
    lane_burst: int = _setting(
        8, _whole(1, 1_000_000), "picks that higher lanes get before a waiting lower one has its own"
    )
    turn_factor: float = _setting(9.0, _number(0, 1000), "length of a model's turn, in switch costs")
    switch_wait: float = _setting(20.0, _number(0, 86400), "longest turn, unless one switch costs more", unit="s")
    hold: bool = _setting(True, _switch, "keep the slot for a program that is about to ask again")

    # the log
    log_format: str = _setting("auto", _one_of("auto", "text", "json"), "auto is text on a terminal, json elsewhere")

    trace: str | None = _setting(
        None, _text, "file to record every event of the line in, for llm-queue simulate; overwritten at each start. No "
        "prompts are in it, but client names are",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.engine == "openai" and self.upstream_url is None:
            raise WrongSetting("--engine openai needs --upstream-url (LLM_QUEUE_UPSTREAM_URL): where that server is")
        if self.num_ctx > self.num_ctx_ceiling:
            raise WrongSetting(
                f"--num-ctx (OLLAMA_NUM_CTX) is {self.num_ctx}, above --num-ctx-ceiling {self.num_ctx_ceiling}: "
                "lower the one or raise the other"
            )
        if not self.on_loopback and not self.api_keys and not self.allow_open:
            raise WrongSetting(
                f"HOST={self.host} would let other machines use this GPU without a key: set LLM_QUEUE_API_KEYS, "
                "or LLM_QUEUE_ALLOW_OPEN=1 if that is what you want"
            )

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
        if raw is None and environ.get(knob.env, "").strip():
            raw, source, parse = environ[knob.env], knob.env, knob.read_env
        if raw is None:
            continue
        try:
            values[knob.name] = parse(raw)
        except ValueError as error:
            shown = "that value" if knob.secret else repr(raw)
            raise WrongSetting(f"{source} {error}, not {shown}") from None
    return Settings(**values)
