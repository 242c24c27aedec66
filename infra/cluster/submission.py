"""Submitting a command to a Ray cluster as a job: what is uploaded, which job it is, and following it to its end.

Imports ray inside functions only. The same submission (command, uploaded source, environment) has the same id: while it
runs, submitting again follows that job; once it has ended, however it did, the next free number is appended, so that what
is asked again is run again.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.config import ConfigError

LIMIT = 100 * 2**20  # Ray's own limit of an upload
EXCLUDES = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "*.egg-info",
    ".*_cache",
    ".hypothesis",
    ".ci",
    "node_modules",
    "salon-store",
    "build",
    "dist",
    "*.log",
)
ALIVE, SUCCEEDED = ("PENDING", "RUNNING"), "SUCCEEDED"


@dataclass(frozen=True)
class Submission:
    """A command and all it needs on the cluster."""

    entrypoint: str
    working_dir: Path
    variables: dict[str, str] = field(default_factory=dict)
    name: str = ""  # submission id; "" for one made of the content
    commit: str = ""  # told to the job, whose copy of the source is no checkout; the content already says what it is

    def runtime(self) -> dict[str, Any]:
        """Ray's runtime environment."""
        names = [path.relative_to(self.working_dir).as_posix() for path in excluded(self.working_dir)]
        told = self.variables | {"SALON_COMMIT": self.commit}
        return {"working_dir": str(self.working_dir), "excludes": [f"/{n}" for n in names], "env_vars": told}

    @cached_property
    def digest(self) -> str:
        """Hash of the command, the uploaded source and the environment."""
        whole = json.dumps([self.entrypoint, self.variables, content(self.working_dir)], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def id(self) -> str:
        """The name asked for, or one that is the same for the same command over the same source."""
        return self.name or f"salon-{self.digest}"


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """(path, uploaded) of files that are uploaded, and of what is not; nothing below what is not."""
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(folder) / name
            if any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDES):
                yield path, False
                if name in folders:
                    folders.remove(name)
            elif name in files:
                yield path, True
        folders.sort()


def uploaded(root: Path) -> list[Path]:
    """Files that go to the cluster."""
    return [path for path, goes in _walk(root) if goes]


def excluded(root: Path) -> list[Path]:
    """Files and folders that stay."""
    return [path for path, goes in _walk(root) if not goes]


def content(root: Path) -> str:
    """Hash over the uploaded files."""
    listing = [(p.relative_to(root).as_posix(), hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(uploaded(root))]
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def require_small(root: Path, *, limit: int = LIMIT) -> int:
    """Bytes to upload; raises ConfigError naming the largest folders where Ray would refuse them."""
    folders: dict[str, int] = {}
    total = 0
    for path in uploaded(root):
        size = path.stat().st_size
        total += size
        parts = path.relative_to(root).parts
        folder = "/".join(parts[: min(2, len(parts) - 1)]) or parts[0]
        folders[folder] = folders.get(folder, 0) + size
    if total > limit:
        largest = sorted(folders.items(), key=lambda item: -item[1])[:5]
        named = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in largest)
        raise ConfigError(
            f"{root} holds {total / 2**20:.0f} MiB, Ray takes {limit / 2**20:.0f} MiB; the largest are {named}; "
            "move data to a disk all machines share, or give a smaller --working-dir"
        )
    return total


def require_dashboard(address: str) -> None:
    """Raises ConfigError, within seconds, for what is no dashboard's address or does not take connections."""
    remedy = "give the address of the cluster's dashboard, http://HOST:8265"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigError(f"--address {address}: {error}; {remedy}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"--address {address}: it is no http address; {remedy}")
    try:
        socket.create_connection((host, port), timeout=10.0).close()
    except OSError as error:
        raise ConfigError(f"--address {address}: nothing takes connections there ({error}); {remedy}") from error


def _refusal(error: Exception) -> str:
    """Why a dashboard cannot be used, and what to do."""
    text = " ".join(str(error).split())
    if "auth" in type(error).__name__.lower() or "401" in text or "403" in text or "AUTH_MODE" in text:
        return (
            "the cluster wants a token; set RAY_AUTH_MODE=token here, and RAY_AUTH_TOKEN_PATH to the file that the head "
            "uses (~/.ray/auth_token on the head where ray start made one)"
        )
    return f"no Ray dashboard answers there: {text[:300]}"


class Cluster:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        require_dashboard(address)
        from ray.job_submission import JobSubmissionClient

        self.address = address
        self._jobs: dict[str | None, Any] = {}
        try:
            self.client = JobSubmissionClient(address)
            self._jobs = {info.submission_id: info for info in self.client.list_jobs()}
        except Exception as error:
            raise ConfigError(f"--address {address}: {_refusal(error)}") from error

    def submit(self, submission: Submission) -> tuple[str, bool]:
        """(id, whether it is a new job): the one of this submission that still runs, or else a new one.

        Raises ConfigError where a job of the name that was asked for is another submission.
        """
        base = submission.id()
        job, number = base, 1
        while (info := self._jobs.get(job)) is not None:
            if submission.name and (info.metadata or {}).get("digest") != submission.digest:
                raise ConfigError(
                    f"--submission-id {base}: job {job} is another command, or the same over other source or environment; "
                    "choose another id, or leave the flag out"
                )
            if str(info.status).rsplit(".", 1)[-1] in ALIVE:
                return job, False
            number += 1
            job = f"{base}-{number}"
        self.client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=job,
            runtime_env=submission.runtime(),
            metadata={"salon": submission.entrypoint, "digest": submission.digest},
        )
        return job, True

    def follow(self, job: str, write: Callable[[str], object]) -> int:
        """Hands on the job's output until it ends; its own exit code."""
        return asyncio.run(self._follow(job, write))

    async def _follow(self, job: str, write: Callable[[str], object]) -> int:
        written = 0
        while True:
            seen = 0  # a connection that broke starts again at the first line
            try:
                async for piece in self.client.tail_job_logs(job):
                    fresh = piece[max(written - seen, 0) :]
                    seen += len(piece)
                    if fresh:
                        write(fresh)
                        written = seen
            except (ConnectionError, RuntimeError):
                await asyncio.sleep(1.0)
            info = self.client.get_job_info(job)
            if info.status not in ALIVE:
                break
            await asyncio.sleep(0.5)
        rest = self.client.get_job_logs(job)[written:]
        if rest:
            write(rest)
        return exit_code(str(info.status), info.driver_exit_code, info.message, write)


def exit_code(status: str, code: int | None, message: str | None, write: Callable[[str], object]) -> int:
    """0 for success, the driver's own code for a failure, 1 where it has none (stopped, or never started)."""
    if status.endswith(SUCCEEDED):
        return 0
    if not code:
        write(f"job {status.rsplit('.', 1)[-1].lower()}: {message or 'no reason given'}\n")
    return code or 1


def words_without(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Words of a command line without the given flags and their values."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if not skip and word.split("=")[0] in flags:
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept
