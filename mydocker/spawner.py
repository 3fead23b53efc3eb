"""`Spawner`: many containers from one program, made when they are needed or before."""

from __future__ import annotations

import os

from mydocker import api, runner
from mydocker.errors import UsageError
from mydocker.spawning.pool import Pool
from mydocker.streams import reserve_standard

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from concurrent.futures import ThreadPoolExecutor
    from typing import Any, Self

    from mydocker.forwarding import Interrupt
    from mydocker.result import Result
    from mydocker.spawning.client import Helper

    Argv = Sequence[str | bytes | os.PathLike[str]]

#: Each costs some megabytes and descriptors.
_MOST_PREPARED = 1000


class Spawner:
    """Runs commands in containers that are all alike.

    ::

        with mydocker.Spawner(prepare=4, rootfs="/srv/judge", memory="64m", capture_output=True) as spawner:
            result = spawner.run(["./solution"], input=test, timeout=2)

        async with mydocker.Spawner(memory="64m") as spawner:
            result = await spawner.run(["./solution"])

    ``prepare``: how many containers stand by, each set up under its limits up to the point at which it only needs a
    command. One serves once, and another takes its place. The other keywords are those of `mydocker.run`, with which
    all runs are made; `run` may add to them. A run gets a container that stands by unless it adds others than the
    streams, ``env``, ``timeout``, ``text``, ``check`` and ``trace``; then one of its own is made for it.

    The plugins, their limits and the rootfs are those of the moment in which a container is made. Threads may share
    a Spawner. At the end of the context the containers that stand by are removed; runs in progress go on.
    """

    def __init__(self, *, prepare: int = 0, **options: Any) -> None:
        """Raises `UsageError`, `LimitError` and the like for options that are wrong; nothing is made yet."""
        if not (isinstance(prepare, int) and 0 <= prepare <= _MOST_PREPARED):
            raise UsageError(f"prepare: {prepare!r} is not a number of containers: it is from 0 to {_MOST_PREPARED}")
        self._size = prepare
        self._options = options
        self._base = api.Call(["true"], options)
        for single in ("name", "pidfile"):
            if prepare and options.get(single):
                raise UsageError(f"{single}: several that stand by cannot have the same: leave it out, or prepare")
        self._pool: Pool | None = None
        self._held: Helper | None = None
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._size and self._pool is None:
            self._pool = Pool(self._size, self._stand_by)
        if self._held is None:
            self._held = api.means().helper
            self._held.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> AsyncSpawner:
        import asyncio

        await asyncio.to_thread(self.__enter__)
        return AsyncSpawner(self)

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Remove the containers that stand by. A run afterwards makes its own."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def run(self, argv: Argv, **options: Any) -> Result:
        """As `mydocker.run`, with the Spawner's keywords and these."""
        return self.interruptible_run(argv, options, None)

    def interruptible_run(self, argv: Argv, options: dict[str, Any], interrupt: Interrupt | None) -> Result:
        """`run`, which ``interrupt`` ends from another thread."""
        alike = api.Call.is_by_run(options)
        call = api.Call(argv, options, self._base) if alike else api.Call(argv, {**self._options, **options})
        pool = self._pool
        prepared = pool.take() if pool is not None and alike else None
        if pool is None or prepared is None:
            return api.run_call(call, interrupt)
        try:
            with prepared:
                return api.run_call(call, interrupt, prepared, pool.want)
        finally:
            pool.want()

    def _stand_by(self) -> runner.Container:
        reserve_standard()
        call = api.Call(["true"], self._options)
        try:
            container = runner.claimed(call.spec, call.config, call.registry, api.means())
            try:
                container.stand_by()
            except BaseException:
                container.__exit__()
                raise
            return container
        except OSError as e:
            raise runner.as_setup_error(e) from e


class AsyncSpawner:
    """What ``async with Spawner(…)`` gives: `run` is awaited. Each run has a thread of its own while it lasts."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    async def run(self, argv: Argv, **options: Any) -> Result:
        """As `Spawner.run`. When the task is cancelled the container is killed and removed before that passes on."""
        import asyncio

        from mydocker.forwarding import Interrupt

        interrupt = Interrupt()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def work() -> None:
            result, error = None, None
            try:
                result = self._spawner.interruptible_run(argv, options, interrupt)
            except BaseException as e:
                error = e
            try:
                loop.call_soon_threadsafe(_settle, done, result, error)
            except RuntimeError:
                pass  # the loop was closed: nobody waits any more

        import threading

        cancelled: asyncio.CancelledError | None = None
        try:
            threading.Thread(target=work, name="mydocker-run", daemon=True).start()
            while not done.done():
                try:
                    await asyncio.wait([done])
                except asyncio.CancelledError as e:
                    cancelled = e
                    interrupt.stop()
            if cancelled is not None:
                done.exception()  # it was stopped: whatever came of it is of no interest
                raise cancelled
            return done.result()
        finally:
            interrupt.close()
            del cancelled


def _settle(done: asyncio.Future[Result], result: Result | None, error: BaseException | None) -> None:
    if error is not None:
        done.set_exception(error)
    else:
        assert result is not None
        done.set_result(result)
