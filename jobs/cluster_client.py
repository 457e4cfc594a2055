"""A Ray cluster's job server, as our commands use it: its token, its log as lines, its errors as ours."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Final

from mnist_core.cluster_address import keep_token
from mnist_core.config_cluster import ClusterFields
from mnist_core.errors import ConfigError, JobFailedError, JobNotFoundError, ResourcesError, UnauthorizedError

OVERRIDING: Final = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Ray's client lets these win over the address it is given."""

CHATTY: Final = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")

PATIENCE_S: Final = 60.0
"""For how long a cluster that does not answer is asked again before a job is left alone."""

RETRY_S: Final = 1.0

LOOK_S: Final = 0.5
"""How often a job's state is asked for while its log is followed."""


class ClusterClient:
    """Talks to one cluster.

    Args:
        config: Its address and token.

    Raises:
        ConfigError: The file with the token is missing, empty, or open to others.
        ResourcesError: Nothing answers there.
        UnauthorizedError: The cluster does not take the token.
    """

    def __init__(self, config: ClusterFields) -> None:
        assert config.address is not None
        self.address = config.address
        token = find_token(config.token_file)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with _plain_environment(), self._errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray.job_submission import JobSubmissionClient

            for name in CHATTY:  # at their import they make themselves heard
                logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.address, headers=headers)

    def submit(self, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
        """Start a job; returns its id."""
        with self._errors():
            job: str = self._client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata)
            return job

    def list(self) -> list[Any]:
        """The jobs that were submitted, the newest first, as Ray's ``JobDetails``."""
        with self._errors():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: -(job.start_time or 0))

    def info(self, job: str) -> Any:
        """Ray's ``JobDetails`` of one job."""
        with self._errors(job):
            return self._client.get_job_info(job)

    def stop(self, job: str) -> bool:
        """Stop a job; False if it had ended already."""
        with self._errors(job):
            stopped: bool = self._client.stop_job(job)
            return stopped

    def log(self, job: str) -> str:
        """All that a job has printed so far."""
        with self._errors(job):
            text: str = self._client.get_job_logs(job)
            return text

    def follow(self, job: str, take: Callable[[str], None], interrupted: Callable[[], None] | None = None) -> Any:
        """Hand out a job's log as it is written, until the job ends; a broken connection is made anew.

        Args:
            job: Its id.
            take: Gets each line, without its end.
            interrupted: Decides what Ctrl-C means: if it returns, the log is followed further; None: the end.

        Returns:
            Ray's ``JobDetails`` at the end.
        """
        from aiohttp import ClientError

        log = _Lines(take)
        self._heard = time.monotonic()
        with asyncio.Runner() as runner:
            runner.get_loop()  # now, so that Ctrl-C cannot meet it half made
            while True:
                try:
                    info = runner.run(self._tail_until_end(job, log))
                    if info.status.is_terminal():
                        log.catch_up(self.log(job))
                        return info
                except KeyboardInterrupt:
                    if interrupted is None:
                        raise
                    interrupted()
                except (RuntimeError, OSError, ClientError, ResourcesError) as err:
                    if time.monotonic() - self._heard > PATIENCE_S:
                        raise JobFailedError(
                            f"{self.address} has not answered for {PATIENCE_S:g} s; job {job} may go on: "
                            f"mnist jobs logs {job} --address {self.address}"
                        ) from err
                time.sleep(RETRY_S)

    async def _tail_until_end(self, job: str, log: _Lines) -> Any:
        """Follow the log until it breaks off or the job has ended; Ray itself notices an end seconds later."""
        tail = asyncio.create_task(self._tail(job, log))
        try:
            while True:
                done, _ = await asyncio.wait({tail}, timeout=LOOK_S)
                info = await asyncio.to_thread(self.info, job)
                self._heard = time.monotonic()
                if info.status.is_terminal():
                    return info
                if done:
                    tail.result()  # raises what broke it
                    return info
        finally:
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)

    async def _tail(self, job: str, log: _Lines) -> None:
        seen = 0
        async with aclosing(self._client.tail_job_logs(job)) as chunks:
            async for chunk in chunks:
                seen += len(chunk)
                log.add(chunk, seen)

    @contextmanager
    def _errors(self, job: str | None = None) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as err:
            hint = "name the file that holds the cluster's: --token-file FILE"
            raise UnauthorizedError(f"{self.address} did not accept the token, or got none; {hint}") from err
        except (ConnectionError, requests.exceptions.RequestException) as err:
            raise ResourcesError(
                f"no Ray cluster answers at --address {self.address}; expected its dashboard, often reached through "
                "ray dashboard CLUSTER.yaml, or ssh -L 8265:127.0.0.1:8265 HEAD"
            ) from err
        except RuntimeError as err:
            if job and "404" in str(err):
                raise JobNotFoundError(f"no job {job} on {self.address}; see mnist jobs list") from err
            raise ResourcesError(f"{self.address} cannot do it now: {err}") from err


class _Lines:
    """Cuts text into lines, and knows how much of it has been seen."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._seen = 0
        self._rest = ""

    def add(self, chunk: str, end: int) -> None:
        """Take a piece of the log that ends at a position; what was seen before is passed over."""
        fresh = chunk[len(chunk) - max(0, min(len(chunk), end - self._seen)) :]
        self._seen = max(self._seen, end)
        *lines, self._rest = (self._rest + fresh).split("\n")
        for line in lines:
            self._take(line)

    def catch_up(self, text: str) -> None:
        """Take what is left of a log that is complete."""
        self.add(text, len(text))
        if self._rest:
            self._take(self._rest)
            self._rest = ""


def find_token(file: Path | None) -> str | None:
    """The cluster's token: from a file, else from where Ray looks; None if there is none.

    Raises:
        ConfigError: The file is missing, empty, or open to others.
    """
    if file is None:
        if os.environ.get("RAY_AUTH_TOKEN"):
            return os.environ["RAY_AUTH_TOKEN"].strip()
        file = Path(os.environ["RAY_AUTH_TOKEN_PATH"]) if os.environ.get("RAY_AUTH_TOKEN_PATH") else keep_token()
        if file is None:
            return None
    try:
        mode = file.stat().st_mode
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"--token-file {file}: cannot be read ({err}); expected a file with one token") from err
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"--token-file {file}: others may read it (mode {mode & 0o777:o}); run chmod 600 {file}")
    if not token:
        raise ConfigError(f"--token-file {file}: is empty; expected one token, such as ray get-auth-token makes")
    return token


@contextmanager
def _plain_environment() -> Iterator[None]:
    taken = {name: os.environ.pop(name) for name in OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)
