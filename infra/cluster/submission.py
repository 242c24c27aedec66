"""Submitting a command to a Ray cluster as a job: what is uploaded, which job it is, and following it to its end.

Imports ray inside functions only. The same submission (command, uploaded source, environment) has the same id: while it
runs, or once it succeeded, submitting again follows that job; after a failure the next free number is appended.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def id(self) -> str:
        """The same for the same command over the same source."""
        said = json.dumps([self.entrypoint, self.variables, content(self.working_dir)], sort_keys=True)
        return self.name or f"salon-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


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


class Cluster:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        self.address = address
        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError(
                f"no cluster answers at {address}: {error}; give the address of its dashboard, http://HOST:8265; a cluster "
                "with tokens needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here, too"
            ) from error

    def _info(self, job: str) -> Any:
        """What the cluster knows of a job, None where it has none of that id."""
        found = {info.submission_id: info for info in self.client.list_jobs()}
        return found.get(job)

    def submit(self, submission: Submission) -> tuple[str, bool]:
        """(id, whether it is a new job)."""
        base = submission.id()
        job, number = base, 1
        while (info := self._info(job)) is not None:
            if info.status in (*ALIVE, SUCCEEDED):
                return job, False
            number += 1
            job = f"{base}-{number}"
        self.client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=job,
            runtime_env=submission.runtime(),
            metadata={"salon": submission.entrypoint},
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
