"""delete: remove what is left of a container that has stopped."""

from __future__ import annotations

import os
import time

from mydocker import plain_json, state
from mydocker.errors import MydockerError, OciError
from mydocker.oci import container, host_mounts
from mydocker.oci.container import Container
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.oci.log import Log
    from mydocker.oci.main import Call

OPTIONS = (
    Option(names=("--force", "-f"), kind="flag", help="kill it if it runs; fine if there is none of this name"),
    Option(names=("--regex",), kind="flag", help="delete every container whose id this regular expression is found in"),
)
ARGUMENTS = "CONTAINER-ID"

#: Seconds that a killed process, or a verb that holds the lock, gets to end.
_PATIENCE = 10.0

#: Seconds in which one that is killed has ended, unless it is frozen in some cgroup or waits in the kernel.
_USUAL = 0.25


def main(call: Call) -> int:
    try:
        if call.options.get("regex"):
            _delete_matching(call)
        else:
            _delete_named(call)
        return 0
    finally:
        container.forget_root(call)


def _delete_matching(call: Call) -> None:
    """Every container whose id matches; what one of them meets keeps none of the others."""
    import re

    from mydocker.oci.list_ import containers

    try:
        expression = re.compile(call.id)
    except re.error as e:
        raise OciError(f"--regex: {call.id!r} is not a regular expression: {e}") from None
    failures = []
    for found in containers(call.root):
        if expression.search(found.id):
            try:
                _delete(found, call)
            except MydockerError as e:
                failures.append(f"{found.id}: {e}")
    if failures:
        raise OciError("; ".join(failures))


def _delete_named(call: Call) -> None:
    try:
        found = container.find(call)
    except OciError:
        if not call.options.get("force"):
            raise
        _remove_without_record(call)
        return
    _delete(found, call)


def _delete(found: Container, call: Call) -> None:
    force = bool(call.options.get("force"))
    status = found.status
    if status in ("running", "paused", "creating") and not force:
        raise OciError(f"cannot delete container {found.id} that is not stopped: {status}")
    try:
        destroy(found, call.log)
    except OciError:
        if not (force and state.read(found.path) is None):  # somebody else has removed it meanwhile
            raise


def _remove_without_record(call: Call) -> None:
    """What a ``create`` that was killed at its very beginning has left."""
    path = f"{call.root}/{container.check_id(call.id)}"
    lock = state.take_lock(path, 0, wait=True)
    try:
        if lock is not None or not os.path.exists(f"{path}/lock"):
            record = state.read(path)
            if record is None or record.oci:
                state.remove_directory(path)
    finally:
        if lock is not None:
            os.close(lock)


def destroy(found: Container, log: Log) -> None:
    """Kill the container if it lives, and remove all of it. To be called again if it was interrupted."""
    kill(found)
    lock = _lock(found)
    try:
        found.reload()
        kill(found)  # a verb that held the lock may have written of a process
        _remove_cgroups(found)
        _remove_cache_shares(found, log)
        host_mounts.remove(_config(found), found.bundle)
        _run_poststop(found, log)
        state.void_brief(found.path)  # first: it is believed without a record
        state.remove_directory(found.path)
    finally:
        os.close(lock)


def kill(found: Container) -> None:
    """Kill the first process, frozen or not, and wait until it has ended."""
    try:
        pidfd = found.open_init()
    except OciError:
        return
    import select

    from mydocker.linux.pidfd import SIGKILL, send_signal
    from mydocker.oci.kill import thaw

    try:
        send_signal(pidfd, SIGKILL)
        thaw(found)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(_USUAL * 1000):
            return
        _take_back(found)
        if not poll.poll(_PATIENCE * 1000):
            raise OciError(f"the process {found.pid} does not end {_PATIENCE:g} s after it was killed")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _take_back(found: Container) -> None:
    """Out of a frozen v1 cgroup that is not the container's, into which somebody has moved the first process."""
    from mydocker.cgroups.freezing import take_back
    from mydocker.cgroups.layout import Layout

    if found.record.cgroup:
        take_back(Layout.read(), found.record.cgroup, found.pid)


def _lock(found: Container) -> int:
    """The lock, which a ``create`` may hold: it gives up when its child is killed, unless one of its hooks hangs."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        lock = state.take_lock(found.path, 0, wait=False)
        if lock is not None:
            return lock
        if not os.path.exists(f"{found.path}/lock"):
            raise OciError(f'container "{found.id}" does not exist')
        if time.monotonic() > deadline:
            raise OciError(f"container {found.id} is in use by another call, of process {found.record.runtime} perhaps")
        time.sleep(0.005)


def _remove_cgroups(found: Container) -> None:
    """With what still runs in them, and with what the plugins made outside of them."""
    from mydocker.cgroups.layout import Layout
    from mydocker.cgroups.removal import remove_stale

    if not found.record.cgroup:
        return
    layout = Layout.read()
    owed = container.to_undo(found.record)
    if owed:
        from mydocker import undoing

        undoing.undo(found.id, owed, layout, found.record.cgroup)
    remove_stale(layout, found.record.cgroup)
    if found.record.oci.get("unit"):
        from mydocker.oci import systemd

        systemd.stop(str(found.record.oci["unit"]))


def _remove_cache_shares(found: Container, log: Log) -> None:
    values = found.record.oci.get("resctrl")
    if not values:
        return
    from mydocker.oci import intel_rdt

    try:
        with intel_rdt.Tree.of_host() as tree:
            intel_rdt.remove(intel_rdt.as_recorded(values), tree)
    except MydockerError as e:  # such as a resctrl that was unmounted, which takes its groups with it
        log.warning(str(e))


def _config(found: Container) -> dict[str, Any]:
    """The config; empty if ``create`` was killed before it had written that."""
    try:
        return found.config
    except (OSError, ValueError):
        return {}


def _run_poststop(found: Container, log: Log) -> None:
    wanted = (_config(found).get("hooks") or {}).get("poststop")
    if wanted:
        from mydocker.oci import hooks

        text = plain_json.dumps(container.state_of(found.record, "stopped")).encode()
        hooks.run("poststop", wanted, text, cwd=os.fsencode(found.bundle), failed=log.warning)
