"""Start the installed service, as whoever has just installed it does. Knows nothing of the checkout."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request


def main() -> int:
    """Start it on a free port, ask whether it is alive, and stop it; 0 if all of that went well."""
    command = [sys.executable, "-P", "-m", "llm_queue", "--port", "0", "--engine", "ollama"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        hello = service.stdout.readline()
        print(hello, end="")
        url = next(word for word in hello.split() if word.startswith("http://127.0.0.1"))
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert answer.read() == b"ok"
        for path, media_type in (
            ("/ui", "text/html"),
            ("/ui/page.js", "text/javascript"),
            ("/ui/page.css", "text/css"),
        ):
            with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
                assert answer.headers.get_content_type() == media_type
                assert answer.read()
        service.send_signal(signal.SIGTERM)
        return service.wait(20)
    finally:
        service.kill()
        service.communicate()


if __name__ == "__main__":
    sys.exit(main())
