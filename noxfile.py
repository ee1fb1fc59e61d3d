"""Every check of the project. ``nox`` runs those that belong to a change; ``nox -l`` lists them all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.reuse_existing_virtualenvs = True

LOCK = ".ci/lock.txt"
PROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = nox.project.python_versions(PROJECT)
APART = ("tests/e2e", "tests/real", "tests/clients", "tests/faults", "tests/page")  # they have sessions of their own
FAST = tuple(part for folder in APART for part in ("--ignore", folder))
REAL_CLOCK = ("--timeout", "300")  # seconds for a test: a process that loads a model on a busy machine takes its time
CANCELLATION = "ASYNC101,ASYNC102,ASYNC119,ASYNC120"  # flake8-async's rules that ruff does not have
READS_FILES = ("tests/web", "tests/terminal", "tests/metrics", "tests/service", "tests/test_docs.py")
NEEDS_SOURCES = "tests/test_docs.py::test_every_relative_link_leads_somewhere"  # some lead into llm_queue/
PURE = "llm_queue/core/*,llm_queue/wire/*"
PROCESSES = "llm_queue/upstream/embedded/child.py,llm_queue/testing/fake_ollama/__main__.py"  # run as such, unmeasured


def pythons() -> list[str]:
    """The supported Pythons that are on this machine, those that pyenv keeps aside included."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = []
    for version in SUPPORTED:
        aside = [str(path) for path in sorted(kept.glob(f"{version}.*/bin"), reverse=True)]
        for folder in [None, *aside]:
            path = os.environ["PATH"] if folder is None else folder
            python = shutil.which(f"python{version}", path=path)
            # A shim is there for every version that pyenv has, and fails for those that are not switched on.
            if python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
                if folder is not None:
                    os.environ["PATH"] = os.pathsep.join([folder, os.environ["PATH"]])
                found.append(version)
                break
    return found


PYTHONS = pythons()
ENDS = dict.fromkeys((*PYTHONS[:1], *PYTHONS[-1:]))  # what holds on both nearly always does between them
nox.options.sessions = [
    *("lint", "types", *(f"tests-{version}" for version in ENDS), "docs"),
    *(*(f"package-{version}" for version in ENDS), "faults", "e2e"),
    *(["real"] if shutil.which("go") else []),
]


def install(session: nox.Session, *groups: str, project: str | None = ".") -> None:
    """Install what these groups need, at the locked versions, and the project."""
    needed = nox.project.dependency_groups(PROJECT, *groups)
    session.install("--quiet", "--constraint", LOCK, *needed, *(["--editable", project] if project else []))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests that need no other process and no real clock, on every supported Python that is there; ``nox`` alone
    takes the oldest and the newest.
    """
    install(session, "tests")
    if session.posargs or session.python != PYTHONS[0]:  # what is covered is the same on each, and takes time
        session.run("pytest", *FAST, *session.posargs)
    else:
        session.run("coverage", "run", "-m", "pytest", *FAST)
        session.run("coverage", "report", "--include", PURE, "--fail-under", "100")
        session.run("coverage", "report", "--omit", f"{PURE},{PROCESSES}", "--fail-under", "95")


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault of an upstream, at every try, in every form of answer; a whole run writes docs/faults.md."""
    install(session, "tests")
    session.run("pytest", "tests/faults", "--page", "docs/faults.md", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Real processes, sockets, signals and the real SDK, against the fake Ollama and the real embedded engine."""
    install(session, "tests", project=".[embedded]")
    session.run("pytest", "tests/e2e", *REAL_CLOCK, *session.posargs)


def real_ollama(session: nox.Session) -> None:
    """See to it that there is a real Ollama: one that is named, else one on the PATH, else one of our own."""
    if not os.environ.get("LLM_QUEUE_REAL_OLLAMA") and not shutil.which("ollama"):
        session.run("python", "-m", "tests.real.install_ollama")


@nox.session
def real(session: nox.Session) -> None:
    """Against a real Ollama: LLM_QUEUE_REAL_OLLAMA=URL, else an ``ollama`` on the PATH, else one that is built first.

    Building it takes Go, a C compiler and three minutes, once; so this is among the usual sessions where there is Go.
    """
    install(session, "tests")
    real_ollama(session)
    session.run("pytest", "tests/real", *REAL_CLOCK, *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Real clients against a started service: SDKs, frameworks, agents, a browser; each at a pinned version.

    Installing them takes the package registries, 3 GB in the cache and some minutes, once; so this is not among the
    usual sessions. Where a network namespace may be made they run in one, and reach nobody but the service.
    """
    install(session, "tests")
    session.run("python", "-m", "tests.clients.install")
    alone = ("python", "-m", "tests.clients.alone")
    session.run(*alone, "python", "-m", "pytest", "tests/clients", *REAL_CLOCK, *session.posargs)


@nox.session
def page(session: nox.Session) -> None:
    """The live page in Debian's Chromium, with axe: on a stage, and in front of a real service.

    ``nox -s page -- write`` also takes the pictures of the documentation anew. It wants a ``chromium`` on the PATH.
    """
    install(session, "page")
    write = "write" in session.posargs
    others = [argument for argument in session.posargs if argument != "write"]
    pictures = ("--pictures", "docs/images") if write else ()
    session.run("pytest", "tests/page", *REAL_CLOCK, *pictures, *others)


@nox.session
def types(session: nox.Session) -> None:
    """Strict types, of the tests too."""
    install(session, "types")
    session.run("mypy", "llm_queue", "tests", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes, those with cancellation included."""
    install(session, "lint", project=None)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("flake8", "--isolated", "--select", CANCELLATION, "llm_queue", "tests")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; fail where it differs from the code. ``nox -s docs -- write`` mends generated parts."""
    install(session, "docs")
    session.run("python", "docs/generate.py", *session.posargs)
    session.run("sphinx-build", "--quiet", "--fail-on-warning", "--nitpicky", "docs", "docs/_build")


@nox.session(python=PYTHONS, reuse_venv=False)
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check their metadata, and start the installed wheel, on every supported Python there;
    ``nox`` alone takes the oldest and the newest.

    On the oldest of them the fast tests of what reads files of the package run against the wheel as well.
    """
    install(session, "package", project=None)
    session.env["PYTHONPATH"] = None  # it may name a checkout, and the wheel is what is tested
    # Not session.create_tmp(): its path is too long for the Unix sockets that some tests name below it.
    with tempfile.TemporaryDirectory() as folder:
        dist, away = Path(folder, "dist"), Path(folder, "away")
        session.run("python", "-m", "build", "--outdir", str(dist))
        session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
        (wheel,) = dist.glob("*.whl")
        session.install("--quiet", "--force-reinstall", "--constraint", LOCK, str(wheel))
        copy_without_sources(away)
        with session.chdir(away):
            session.run("llm-queue", "--version")
            session.run("python", "-P", "tests/installed.py")
        if session.python == PYTHONS[0]:
            install(session, "tests", project=None)
            with session.chdir(away):
                session.run("python", "-P", "-m", "pytest", *READS_FILES, "--deselect", NEEDS_SOURCES)


def copy_without_sources(folder: Path) -> None:
    """Copy the tests and what they read, but not the package: what is imported then is what is installed."""
    for part in ("tests", "docs", ".ci"):
        shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for file in (Path("pyproject.toml"), *Path().glob("*.md")):
        shutil.copy(file, folder)


@nox.session
def peers(session: nox.Session) -> None:
    """What Ollama and llama.cpp test their own servers with, directly and through the line: ``nox -s peers -- ollama``.

    Their tests come out of the package registries, once, and stay in the cache; nothing that runs leaves this machine.
    """
    install(session, "tests")
    session.run("python", "-m", "tests.real.install_ollama")  # the version that the tests belong to, and no other
    session.run("python", "-m", "tests.peers", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What the line costs, as ratios taken side by side in one run. Give it the machine for itself."""
    install(session, "tests")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(name="bench-real")
def bench_real(session: nox.Session) -> None:
    """The load it was made for, on a real Ollama, written to docs/performance.md. Give it the machine for itself."""
    install(session, "tests")
    real_ollama(session)
    measure = ("python", "-m", "tests.bench.real", "--write")
    session.run("python", "-m", "tests.real.ollama", *measure, *session.posargs)
    install(session, "tests", project=".[embedded]")
    agents = ("python", "-m", "tests.bench.agents", "--write")
    session.run("python", "-m", "tests.real.ollama", *agents, env={"LLAMA_ARG_CACHE_RAM": "0"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Attack the service with 100,000 raw inputs, and schemathesis on its own document: ``-- --seconds 30`` for less.

    ``-- --seed SEED --only NUMBER`` plays one input again.
    """
    install(session, "fuzz")
    session.run("python", "-m", "tests.fuzz", *session.posargs)
    if "--only" not in session.posargs:
        session.run("python", "-m", "tests.fuzz.parsers", *session.posargs)
        session.run("python", "-m", "tests.fuzz.api", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Ten thousand callers at once, 30 minutes of random load and faults, and 100,000 requests for a foreign canary.

    ``nox -s soak -- --seconds 60 --callers 2000 --isolation 5000`` is a short one; ``--seed`` asks the same again.
    """
    install(session, "tests")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """A million steps of the core's machine, 600 random runs for each bound, and the mutants that must be killed."""
    install(session, "tests")
    long = ("tests/core/test_machine.py", "tests/simulate/test_bounds.py")
    session.run("pytest", *long, "--timeout", "0", env={"HYPOTHESIS_PROFILE": "nightly"})
    session.run("python", "-m", "tests.core.mutants")


@nox.session
def audit(session: nox.Session) -> None:
    """Whether a package of the lock file has a known weakness; needs the network.

    Without an answer it fails as well: ``nox -s audit -- --may-be-unknown`` lets that pass.
    """
    install(session, "audit", project=None)
    session.run("python", "-m", "tests.audit", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock file anew, for every supported Python; ``nox -s lock -- PACKAGE`` renews only what is named."""
    session.install("uv")
    groups = [argument for group in PROJECT["dependency-groups"] for argument in ("--group", group)]
    upgrade = [part for name in session.posargs for part in ("--upgrade-package", name)] or ["--upgrade"]
    session.run(
        *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", SUPPORTED[0], "--no-header", *upgrade),
        *("--no-annotate", *groups, "--all-extras", "pyproject.toml", "--output-file", LOCK),
    )
