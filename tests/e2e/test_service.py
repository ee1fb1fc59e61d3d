"""The service as a process: starting, stopping, outages, and what no client may do to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Ollama, Service, until

EXTENSION = {"Origin": "chrome-extension://abcdefghijklmnopabcdefghijklmnop"}


def run(*arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llm_queue", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)


# --- starting ---


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"PORT": "http"}, "PORT"),
        ({"LLM_TIMEOUT_MS": "-1"}, "LLM_TIMEOUT_MS"),
        ({"OLLAMA_NUM_CTX": "100000"}, "--num-ctx-ceiling"),
        ({"HOST": "0.0.0.0"}, "LLM_QUEUE_API_KEYS"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_and_exit_code_2(environ: dict[str, str], named: str) -> None:
    refused = run(environ=environ)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not refused.stdout


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(service: Service) -> None:
    refused = run("--port", str(service.port), environ={})
    assert refused.returncode == 2
    assert str(service.port) in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_help_names_every_setting_with_its_variable_and_default() -> None:
    text = run("--help", environ={"COLUMNS": "200"}).stdout
    assert "--max-waiting" in text
    assert "LLM_QUEUE_MAX_WAITING; default: 2000" in text
    assert "LLM_TIMEOUT_MS; default: 90 s" in text


def test_it_starts_without_an_ollama_and_says_so_once(start_service: Callable[..., Service]) -> None:
    with socket.socket() as placeholder:  # bound and not listening: whoever connects is refused
        placeholder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{placeholder.getsockname()[1]}"
        service = start_service("--first-outage-wait", "0.5", url=url)
        assert service.http.get("/health").text == "ok"
        ready = service.http.get("/ready")
        assert ready.status_code == 503
        assert url in ready.text
        answer = service.chat("hello")
        assert answer.status_code == 502
        assert "ollama serve" in answer.json()["error"]["message"]
        assert sum("is not there" in event["event"] for event in service.events()) == 1


def test_a_loaded_model_is_adopted_so_that_a_restart_reloads_nothing(
    ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    first = start_service()
    assert first.chat("hello", numCtx=16384).status_code == 200
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second = start_service()
    assert second.chat("hello").headers["x-llm-queue-num-ctx"] == "16384"
    assert len(ollama.log()["loads"]) == 1


# --- stopping ---


def test_sigterm_lets_the_line_finish_and_refuses_new_work(ollama: Ollama, service: Service) -> None:
    jobs = [service.chat_later(f"!first 0.3 job {number}") for number in range(3)]
    until(lambda: service.waiting() == 2)
    service.signal(signal.SIGTERM)
    until(lambda: service.http.get("/ready").status_code == 503)
    refused = service.chat("too late")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert [job.result().status_code for job in jobs] == [200] * 3
    assert service.wait() == 0
    assert ollama.log()["max_in_flight"] == 1


def test_whoever_is_left_when_the_drain_ends_is_told_so(ollama: Ollama, start_service: Callable[..., Service]) -> None:
    service = start_service("--drain-timeout", "0.3")
    jobs = [service.chat_later("!hang") for _ in range(4)]
    until(lambda: service.waiting() == 3)
    service.signal(signal.SIGTERM)
    answers = [job.result() for job in jobs]
    assert [answer.status_code for answer in answers] == [503] * 4
    assert all("retry-after" in answer.headers for answer in answers)
    assert service.wait() == 1
    lost = next(event["jobs"] for event in service.events() if "not finished" in event["event"])
    assert len(lost) == 4
    until(lambda: ollama.log()["in_flight"] == 0)


def test_a_second_signal_skips_to_the_end(service: Service, ollama: Ollama) -> None:
    job = service.chat_later("!hang")
    until(lambda: len(ollama.work()) == 1)
    service.signal(signal.SIGINT)
    service.wait_for_line("may finish first")
    service.signal(signal.SIGINT)
    assert job.result().status_code == 503
    assert service.wait() == 1


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def test_a_signal_after_the_drain_does_not_cut_the_end_short(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as unfinished:
        unfinished.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        until(lambda: service.http.get("/health").status_code == 200)
        service.signal(signal.SIGTERM)
        until(lambda: not listens(service.port))
        service.signal(signal.SIGINT)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0


# --- outages ---


def test_ollama_killed_and_restarted_under_a_line_of_20_answers_all_20(
    start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]
) -> None:
    ollama = start_ollama()
    service = start_service(url=ollama.url)
    jobs = [service.chat_later(f"!first 0.1 job {number}") for number in range(20)]
    until(lambda: len(ollama.work()) >= 3)
    ollama.end()
    service.wait_for_line("is not there")
    assert service.http.get("/ready").status_code == 503
    again = start_ollama(port=ollama.port)
    assert [job.result().status_code for job in jobs] == [200] * 20
    assert again.log()["max_in_flight"] == 1
    assert service.http.get("/ready").status_code == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


# --- browsers ---


def test_an_extension_gets_through_with_no_set_up(service: Service) -> None:
    preflight = service.http.options(
        "/v1/chat/completions",
        headers=EXTENSION
        | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-llm-queue-lane",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == EXTENSION["Origin"]
    assert preflight.headers["access-control-allow-private-network"] == "true"
    assert preflight.headers["access-control-max-age"] == "7200"
    answer = service.chat("!say hi", headers=EXTENSION, priority=True)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == EXTENSION["Origin"]
    assert answer.headers["x-llm-queue-lane"] == "interactive"
    assert service.chat("", headers=EXTENSION, numCtx=0).headers["access-control-allow-origin"] == EXTENSION["Origin"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "rebound.example"}],
)
def test_a_foreign_page_or_a_rebound_name_is_refused_before_it_costs_anything(
    headers: dict[str, str], ollama: Ollama, service: Service
) -> None:
    assert service.chat("!say stolen", headers=headers | {"Content-Type": "text/plain"}).status_code == 403
    assert service.http.get("/v1/models", headers=headers).status_code == 403
    preflight = service.http.options("/v1/chat/completions", headers=headers)
    assert preflight.status_code == (403 if "Host" in headers else 204)  # a page may read why its request is refused
    assert not ollama.work()


def test_both_loopback_addresses_answer(service: Service) -> None:
    if "[::1]" in service.lines[0]:
        assert service.http.get(f"http://[::1]:{service.port}/health").text == "ok"
    assert service.http.get(f"http://localhost:{service.port}/health").text == "ok"


def test_api_keys_are_asked_for(start_service: Callable[..., Service]) -> None:
    service = start_service(environ={"LLM_QUEUE_API_KEYS": "cron=secret, other"})
    assert service.chat("!say hi").status_code == 401
    assert service.http.get("/health").status_code == 200
    for key in ("secret", "other"):
        assert service.chat("!say hi", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert service.chat("!say hi", headers={"Authorization": "Bearer cron"}).status_code == 401


def test_keys_of_a_file_have_a_lane_and_stand_in_nothing_that_is_said(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text("# ours\ndesk=s3cret-one\ncron=s3cret-two lane=background share=0.5\n")
    service = start_service("--api-keys-file", str(file))
    assert service.chat("!say hi").status_code == 401
    for key, lane in (("one", "interactive"), ("two", "background")):
        headers = {"Authorization": f"Bearer s3cret-{key}", "X-LLM-Queue-Lane": "interactive"}
        answer = service.chat("!say hi", headers=headers)
        assert (answer.status_code, answer.headers["x-llm-queue-lane"]) == (200, lane)
    line = service.http.get("/queue", headers={"x-api-key": "s3cret-one"})
    assert "s3cret" not in line.text + "".join(service.lines)
    assert "s3cret" not in " ".join(psutil.Process(service.child.pid).cmdline())


# --- hostile clients ---


def test_a_websocket_upgrade_with_following_bytes_ends_nothing(service: Service) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(
                b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85garbage"
            )
            connection.recv(1000)
    assert service.chat("!say alive").status_code == 200


def test_a_slow_reader_does_not_block_the_exit(ollama: Ollama, start_service: Callable[..., Service]) -> None:
    service = start_service("--drain-timeout", "0.5")
    body = b'{"stream": true, "messages": [{"role": "user", "content": "!slow 0 !tokens 2000000 go"}]}'
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        until(lambda: ollama.work())
        service.signal(signal.SIGTERM)
        assert service.wait() in (0, 1)


def test_no_prompt_and_no_answer_gets_into_the_log(service: Service) -> None:
    service.chat("!say the-answer")
    service.chat("!error500 the-prompt")
    service.signal(signal.SIGTERM)
    service.wait()
    finished = [event for event in service.events() if "run_s" in event]
    assert [event["event"] for event in finished] == ["done", "failed"]
    assert finished[0]["client"]
    assert not any("the-answer" in line for line in service.lines)
