"""The process of an embedded engine, without an engine: run as a script, it does what the plan beside its model says.

It serves nothing itself. It says where a server of the test listens, and lives until its stdin ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

plan = json.loads(Path(sys.argv[1]).with_name("plan.json").read_text(encoding="utf-8"))
match plan["does"]:
    case "disk":
        sys.exit("llama_model_load: error loading model: no space left on device")
    case "killed-load":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
print(json.dumps({"url": plan["url"], "key": "the key"}), flush=True)
sys.stdin.buffer.read()
os._exit(0)
