"""``llm-queue service install --take-over``: the line in Ollama's place, so that no program changes anything.

Ollama moves to another port, and the service listens on its old one as well. What that takes is shown first. The order
is what keeps programs served: Ollama is moved, it is seen to answer there, and only then the service starts.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from platformdirs.unix import Unix

from llm_queue.launch import command
from llm_queue.service.install import Talk, content, install, is_ours, shown, write
from llm_queue.service.machine import Machine
from llm_queue.service.ollama import (
    MOVED_TO,
    SHOW,
    Move,
    Place,
    Unit,
    as_root,
    host_in,
    move_app,
    move_unit,
    moved_to,
    read_unit,
)
from llm_queue.service.units import Plan, flags_in, plan_for
from llm_queue.settings import Settings, WrongSetting, knobs, load
from llm_queue.settings.values import OLLAMA_PORT, ServerUrl

_SYSTEMS: Final = ("linux", "darwin")

_NO_UNIT: Final = (
    "llm-queue: there is no ollama.service here, so something else starts Ollama, and only that can move it. "
    f"Have it start Ollama with OLLAMA_HOST=127.0.0.1:{MOVED_TO}, and then say:"
)
_WINDOWS: Final = (
    f"llm-queue: on this system you move Ollama yourself. Say `setx OLLAMA_HOST 127.0.0.1:{MOVED_TO}`, quit Ollama "
    "(its icon in the task bar), start it again, and have this start with your session:"
)
_WINDOWS_BACK: Final = (
    'llm-queue: on this system you move Ollama back yourself. End llm-queue, say `setx OLLAMA_HOST ""`, quit Ollama '
    "and start it again. Then have this start with your session:"
)


class TakeOver:
    """One take-over, or its undoing, for the user of this process."""

    def __init__(self, platform: str, settings: Settings, talk: Talk, machine: Machine, *, yes: bool) -> None:
        """``settings`` are those that were given now; those of an installed service stay where these say nothing."""
        self._platform = platform
        self._given = settings
        self._talk = talk
        self._machine = machine
        self._yes = yes

    def act(self, *, undo: bool) -> int:
        """Take over, or undo it. Returns the exit code: 0 when all is as it was asked to be."""
        if self._machine.user == 0 and "SUDO_USER" in self._machine.environ:
            return self._no("say it without sudo: the service is yours. What needs root is then shown, for you to run.")
        try:
            settings = self._settings()
            if reason := self._not_here(settings):
                return self._no(f"{reason}, so there is none to move: --port 11500,{OLLAMA_PORT} is all that it takes.")
            if self._platform not in _SYSTEMS:
                return self._by_hand(settings, _WINDOWS_BACK if undo else _WINDOWS, undo=undo)
            return self._undo(settings) if undo else self._take_over(settings)
        except WrongSetting as error:
            return self._no(str(error))
        except OSError as error:
            return self._no(str(error))

    # --- take over ---

    def _take_over(self, settings: Settings) -> int:
        move = self._move()
        if isinstance(move, int):
            return move
        if move is None:
            return self._by_hand(settings, _NO_UNIT, undo=False)
        moves = move.before.port == OLLAMA_PORT
        place = move.after if moves else move.before
        settings = _in_its_place(settings, place)
        plan = self._plan(settings)
        say = self._talk.say
        if moves:
            say(f"Ollama moves from port {OLLAMA_PORT} to {MOVED_TO}.\n\n{shown(move.path, move.text)}")
        else:
            say(f"Ollama is at port {place.port} already, and stays there.")
        for note in self._notes(move, moves=moves):
            say(note)
        if moves and move.root and self._machine.user != 0:
            say(f"That unit is the system's, so it takes root. Run these, then this command again:\n{as_root(move)}")
            return 1
        say(shown(plan.path, plan.text))
        if not self._agreed("Move Ollama, and start the service in its place? [y/N] "):
            return 1
        if moves:
            write(move.path, move.text)
            if self._talk.run_all(move.start):
                say("llm-queue: Ollama may not have been started again; looking whether it answers ...")
        if not self._machine.answers(f"{place.url}/api/version"):
            return self._no(
                f"Ollama does not answer at {place.url}. Start it again, then say this once more; or undo it with "
                "--undo. The service was not changed."
            )
        return self._install(plan, settings)

    def _move(self) -> Move | int | None:
        """What moves the Ollama of this machine; None if nobody knows how; an exit code if it cannot be."""
        if self._platform == "darwin":
            host = self._machine.query(["launchctl", "getenv", "OLLAMA_HOST"]).strip()
            return move_app(host, _agents(), self._machine.user)
        unit = self._unit()
        if unit is None:
            return None
        for file in unit.files:
            said = host_in((content(Path(file)) or "").splitlines()) if os.access(file, os.R_OK) else None
            if said is not None:
                unit = dataclasses.replace(unit, host=said)
                if unit.place.port == OLLAMA_PORT:
                    return self._no(
                        f"{file} sets OLLAMA_HOST, and wins over all that could be added to Ollama's unit. Set it to "
                        f"{unit.place.at(MOVED_TO)} there, restart Ollama, and say this again."
                    )
        return move_unit(unit, _user_units())

    def _unit(self) -> Unit | None:
        found = []
        for of_system in (True, False):
            control = ("systemctl",) if of_system else ("systemctl", "--user")
            unit = read_unit(self._machine.query([*control, *SHOW]), of_system=of_system)
            found += [unit] if unit else []
        return next((unit for unit in found if unit.active), found[0] if found else None)

    def _notes(self, move: Move, *, moves: bool) -> list[str]:
        notes = []
        if moves and move.before.open:
            notes.append(
                f"Other machines reach Ollama (OLLAMA_HOST={move.before}). They will find it at port {MOVED_TO}, past "
                f"the line, and nothing at {OLLAMA_PORT}, unless the service listens for them: --host and "
                "LLM_QUEUE_API_KEYS."
            )
        if moves and self._platform == "darwin":
            notes.append(
                f"Programs of your session see OLLAMA_HOST={move.after}, Ollama's own command among them, and would go "
                f"past the line: put `export OLLAMA_HOST=127.0.0.1:{OLLAMA_PORT}` into your shell's profile."
            )
        return notes

    # --- undo ---

    def _undo(self, settings: Settings) -> int:
        moved = self.moved()
        if moved is None and OLLAMA_PORT not in settings.port:
            self._talk.say("Nothing to undo: no file of ours moves Ollama, and the service is not in its place.")
            return 0
        back = moved.before if moved else None
        settings = _out_of_its_place(settings, back)
        plan = self._plan(settings)
        say = self._talk.say
        installed = plan.path.exists()
        if installed:
            say(shown(plan.path, plan.text))
        if moved is not None:
            say(f"Ollama goes back to port {OLLAMA_PORT}: {moved.path} is removed, and Ollama started again.")
        if not self._agreed("Do it? [y/N] "):
            return 1
        # The service first, because it holds the port that Ollama needs.
        code = install(plan, settings, self._talk) if installed else 0
        if moved is None:
            return code
        if moved.root and self._machine.user != 0:
            say(
                f"The service has left port {OLLAMA_PORT}. The rest needs root; run these:\n{as_root(moved, undo=True)}"
            )
            return 1
        moved.path.unlink()
        code = max(code, self._talk.run_all(moved.undo))
        if not self._machine.answers(f"{moved.before.url}/api/version"):
            return self._no(f"Ollama does not answer at {moved.before.url} yet: start it again.")
        return code

    def moved(self) -> Move | None:
        """The move that a file of ours has made."""
        if self._platform == "darwin":
            moves = [move_app(None, _agents(), self._machine.user)]
        else:
            moves = [move_unit(Unit(of_system=of_system), _user_units()) for of_system in (True, False)]
        for move in moves:
            if is_ours(move.path):
                after = moved_to(content(move.path) or "") or move.after
                return dataclasses.replace(move, before=after.at(OLLAMA_PORT), after=after)
        return None

    # --- both ---

    def _settings(self) -> Settings:
        """Those of the service that is installed, and over them what was given now."""
        plan = plan_for(self._platform, self._given)
        base = _installed(plan) if plan is not None else None
        if base is None:
            if plan is not None and plan.path.exists():
                self._talk.say(f"The settings in {plan.path} could not be read: those that are given now count alone.")
            return self._given
        given = {knob.name: getattr(self._given, knob.name) for knob in knobs()}
        changed = {knob.name: given[knob.name] for knob in knobs() if given[knob.name] != knob.default}
        return dataclasses.replace(base, **changed)

    def _not_here(self, settings: Settings) -> str:
        """Why the Ollama of this machine is not what is behind the line; empty if it may be."""
        if settings.engine in ("openai", "embedded") or settings.upstream_url or settings.gguf:
            return "there is no Ollama behind this line"
        if settings.ollama_url and not self._machine.is_here(Place.of(settings.ollama_url).host):
            return f"Ollama is at {settings.ollama_url}, on another machine"
        return ""

    def _plan(self, settings: Settings) -> Plan:
        plan = plan_for(self._platform, settings)
        assert plan is not None
        return plan

    def _install(self, plan: Plan, settings: Settings) -> int:
        code = install(plan, settings, self._talk)
        if code:
            return code
        if not self._machine.answers(f"http://127.0.0.1:{OLLAMA_PORT}/health"):
            return self._no(f"the service does not answer at port {OLLAMA_PORT}: `llm-queue service status` says more.")
        self._talk.say(f"llm-queue is in Ollama's place, at port {OLLAMA_PORT}; --take-over --undo puts it back.")
        return 0

    def _agreed(self, question: str) -> bool:
        if self._yes or self._talk.agreed(question):
            return True
        self._talk.say("llm-queue: nothing was changed. On a terminal it asks; elsewhere, say --yes.")
        return False

    def _by_hand(self, settings: Settings, how: str, *, undo: bool) -> int:
        settings = _out_of_its_place(settings, Place()) if undo else _in_its_place(settings, Place().at(MOVED_TO))
        self._talk.say(how)
        if self._platform == "linux":
            self._talk.say(f"  {shlex.join(['llm-queue', 'service', 'install', *command(settings)[3:]])}")
        else:
            self._talk.say(f"  {subprocess.list2cmdline(command(settings))}")
        return 1

    def _no(self, reason: str) -> int:
        self._talk.say(f"llm-queue: {reason}")
        return 1


def still_moved(platform: str) -> Path | None:
    """The file of ours that still moves Ollama; None if there is none."""
    machine = Machine()
    move = TakeOver(platform, Settings(), Talk(), machine, yes=False).moved() if platform in _SYSTEMS else None
    return move.path if move else None


def _in_its_place(settings: Settings, ollama: Place) -> Settings:
    ports = tuple(dict.fromkeys((*settings.port, OLLAMA_PORT)))
    return dataclasses.replace(settings, port=ports, ollama_url=ServerUrl(ollama.url))


def _out_of_its_place(settings: Settings, ollama: Place | None) -> Settings:
    """``ollama`` is where Ollama will be; None: where it is.

    That is said even if it is the default: a service that starts before Ollama is back must wait for it, and not take
    another engine.
    """
    ports = tuple(port for port in settings.port if port != OLLAMA_PORT) or Settings().port
    url = settings.ollama_url if ollama is None else ServerUrl(ollama.url)
    return dataclasses.replace(settings, port=ports, ollama_url=url)


def _installed(plan: Plan) -> Settings | None:
    """The settings of the installed service, with the secrets that it reads at its start; None if there is none."""
    if not is_ours(plan.path):
        return None
    names = {knob.flag: knob.name for knob in knobs()}
    words = [word.partition("=") for word in flags_in(content(plan.path) or "")]
    lines = [line.strip().partition("=") for line in (content(plan.keys) or "").splitlines()]
    secret = {knob.env for knob in knobs() if knob.secret}
    environ = {name: value for name, _, value in lines if name in secret}
    try:
        return load({names[flag]: value for flag, _, value in words if flag in names}, environ)
    except WrongSetting:
        return None


def _user_units() -> Path:
    return Unix("llm-queue").user_config_path.parent / "systemd" / "user"


def _agents() -> Path:
    return Path.home() / "Library" / "LaunchAgents"
