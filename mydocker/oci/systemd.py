"""systemd's cgroup driver: a container in a transient scope (org.freedesktop.systemd1(5), systemd.scope(5)).

systemd makes the scope's cgroup and is told that what is in it is ours to arrange (``Delegate``). The limits are
written to the kernel's files as everywhere; systemd is told of those for which it has a property, for it writes them
anew when it is reloaded.

A scope needs a process to begin with, and is removed with its last one. So a placeholder is in it until the container's
first process is.

D-Bus is spoken through jeepney: pure Python, without dependencies, and it needs no event loop. No other cgroup driver
loads it: it comes with ``pip install mydocker[systemd]``.
"""

from __future__ import annotations

import os
import time

from mydocker.cgroups import files
from mydocker.cgroups.group import ContainerCgroup
from mydocker.errors import CgroupError, OciError
from mydocker.linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from mydocker.cgroups.layout import Layout
    from mydocker.oci.cgroup_path import Place
    from mydocker.state import Record

    #: name, (signature, value)
    Property = tuple[str, tuple[str, Any]]

#: Seconds for a job of systemd's.
_PATIENCE = 30.0
_PR_SET_PDEATHSIG = 1
_INFINITY = (1 << 64) - 1

_MANAGER = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_NO_SYSTEMD = "--systemd-cgroup: systemd does not run here, or its bus cannot be reached"


class Manager:
    """systemd's manager: that of the system, or a plain user's own."""

    def __init__(self) -> None:
        try:
            from jeepney import DBusAddress, new_method_call
            from jeepney.io.blocking import open_dbus_connection
        except ImportError:
            raise OciError("--systemd-cgroup: it takes the library jeepney: pip install mydocker[systemd]") from None
        path, name, interface = _MANAGER
        self._new_call: Callable[..., Any] = new_method_call
        self._address = DBusAddress(path, name, interface)
        self._unit_interface = "org.freedesktop.DBus.Properties"
        try:
            self._connection = open_dbus_connection(bus=_bus())
        except (OSError, KeyError, ValueError) as e:
            raise OciError(f"{_NO_SYSTEMD}: {e}") from None

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, signature: str = "", body: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """The body of the answer. OciError with systemd's words if it refuses."""
        return self._send(self._new_call(self._address, method, signature, body), method)

    def _send(self, message: Any, what: str) -> tuple[Any, ...]:
        from jeepney import HeaderFields, MessageType

        try:
            answer = self._connection.send_and_get_reply(message, timeout=_PATIENCE)
        except (OSError, TimeoutError) as e:
            raise OciError(f"systemd does not answer to {what}: {e or 'it takes too long'}") from e
        if answer.header.message_type is MessageType.error:
            name = str(answer.header.fields.get(HeaderFields.error_name, ""))
            text = str(answer.body[0]) if answer.body else name
            if name.endswith(("ServiceUnknown", "NameHasNoOwner")):
                raise OciError(_NO_SYSTEMD)
            raise OciError(f"systemd refuses {what}: {text}")
        return tuple(answer.body)

    def start(self, unit: str, properties: Iterable[Property]) -> None:
        """Start a transient unit and wait until it runs."""
        self._wait_for(lambda: self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", [*properties], [])))

    def stop(self, unit: str) -> None:
        self._wait_for(lambda: self.call("StopUnit", "ss", (unit, "replace")))

    def _wait_for(self, begin: Callable[[], tuple[Any, ...]]) -> None:
        """Until the job that ``begin`` names is done. Its end is told by a signal, which may come before the answer."""
        from collections import deque

        from jeepney import MatchRule, message_bus

        rule = MatchRule(type="signal", interface=_MANAGER[2], member="JobRemoved", path=_MANAGER[0])
        ended: deque[Any] = deque()
        with self._connection.filter(rule, queue=ended):
            self._send(message_bus.AddMatch(rule), "AddMatch")
            self.call("Subscribe")
            (job,) = begin()
            deadline = time.monotonic() + _PATIENCE
            while True:
                try:
                    message = self._connection.recv_until_filtered(ended, timeout=deadline - time.monotonic())
                except TimeoutError:
                    raise OciError(f"systemd does not end its job in {_PATIENCE:g} s") from None
                _, path, unit, result = message.body
                if path == job:
                    if result != "done":
                        raise OciError(f"systemd cannot make {unit}: its job ended as {result}")
                    return

    def cgroup_of(self, unit: str) -> str:
        """The unit's cgroup, from the top of systemd's hierarchy."""
        from jeepney import DBusAddress

        (path,) = self.call("GetUnit", "s", (unit,))
        address = DBusAddress(path, _MANAGER[1], "org.freedesktop.DBus.Properties")
        body = ("org.freedesktop.systemd1.Scope", "ControlGroup")
        ((_, cgroup),) = self._send(self._new_call(address, "Get", "ss", body), "the cgroup of the unit")
        return str(cgroup)

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        """Until the next boot."""
        self.call("SetUnitProperties", "sba(sv)", (unit, True, [*properties]))


def _bus() -> str:
    """The system's, or a plain user's own, of which systemd's user manager is on (user@.service)."""
    if os.geteuid() == 0:
        return "SYSTEM"
    if "DBUS_SESSION_BUS_ADDRESS" not in os.environ:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        return f"unix:path={runtime}/bus"
    return "SESSION"


class Scope(ContainerCgroup):
    """The cgroup of a scope, while the container is made."""

    _placeholder = 0

    @classmethod
    def make(cls, place: Place, layout: Layout) -> Scope:
        """Start the scope, and make the cgroup in the hierarchies that systemd leaves alone.

        `remove` is owed. OciError if systemd does not run, or refuses.
        """
        manager = Manager()
        placeholder = _wait_in_a_process()
        try:
            manager.start(place.unit, [*_beginning(place, placeholder), *place.properties])
            scope = cls(layout, _below_base(manager.cgroup_of(place.unit), layout) or place.path)
        except BaseException:
            _end(placeholder)
            raise
        finally:
            manager.close()
        scope._placeholder = placeholder
        try:
            scope.complete()
        except BaseException:
            scope.remove()
            raise
        return scope

    def runs(self, pid: int) -> None:
        super().runs(pid)
        self._release()

    def remove(self) -> None:
        self._release()
        super().remove()

    def _release(self) -> None:
        placeholder, self._placeholder = self._placeholder, 0
        if placeholder:
            _end(placeholder)


def _wait_in_a_process() -> int:
    """A process that does nothing, and ends with this one."""
    pid = process.fork()
    if pid:
        return pid
    try:
        process.prctl(_PR_SET_PDEATHSIG, signals.SIGKILL)
        process.close_all_except(frozenset())
        while True:
            time.sleep(3600)
    finally:
        os._exit(0)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _below_base(cgroup: str, layout: Layout) -> str:
    """The cgroup as `ContainerCgroup` takes it: from the base, which for a plain user is far below the top."""
    path = cgroup.strip("/")
    for hierarchy in layout.hierarchies:
        base = hierarchy.base.removeprefix(hierarchy.mountpoint).strip("/")
        if base and path.startswith(f"{base}/"):
            return path.removeprefix(f"{base}/")
    return path


def _beginning(place: Place, pid: int) -> Iterator[Property]:
    """What every scope of a container has."""
    yield "Description", ("s", f"container {place.unit.removesuffix('.scope')}")
    yield "Slice", ("s", place.slice)
    yield "PIDs", ("au", [pid])
    yield "Delegate", ("b", True)
    yield "DefaultDependencies", ("b", False)
    for name in ("Memory", "CPU", "Tasks"):
        yield f"{name}Accounting", ("b", True)


def tell(record: Record) -> None:
    """Tell systemd which limits are in the kernel's files, as far as it has a property for them."""
    properties = [found for path in record.writers for found in _property(path)]
    if properties:
        manager = Manager()
        try:
            manager.set_properties(str(record.oci["unit"]), properties)
        finally:
            manager.close()


def stop(unit: str) -> None:
    """Have systemd forget the scope of a container that has ended. Fine if it has done so."""
    try:
        manager = Manager()
    except OciError:
        return  # systemd is gone, and its scopes with it
    try:
        manager.stop(unit)
    except OciError:
        pass  # the unit is gone with its last process
    finally:
        manager.close()


def _property(path: str) -> Iterator[Property]:
    """What systemd calls the limit in this file of a cgroup; nothing if it has no name for it."""
    directory, _, name = path.rpartition("/")
    try:
        text = files.read(path) if path.startswith("/") else ""
    except CgroupError:
        return
    if name in _NUMBERS:
        number = text.removeprefix("default ").partition("\n")[0]
        yield _NUMBERS[name], ("t", _INFINITY if number in ("max", "-1") else int(number))
    elif name == "cpu.max":
        quota, period = text.split()
        yield from _quota(quota, period)
    elif name == "cpu.cfs_quota_us":
        yield from _quota(text, files.read(f"{directory}/cpu.cfs_period_us"))
    elif name in _MASKS and os.path.exists(f"{directory}/cpuset.cpus.effective"):
        from mydocker.resources import parse_cpu_list

        yield _MASKS[name], ("ay", mask_of(parse_cpu_list(text) if text else ()))


_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "memory.limit_in_bytes": "MemoryLimit",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "cpu.shares": "CPUShares",
    "io.weight": "IOWeight",
    "blkio.weight": "BlockIOWeight",
}
_MASKS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _quota(quota: str, period: str) -> Iterator[Property]:
    """CPU time in a second, in whole hundredths of it upwards, as systemd has it."""
    if quota in ("max", "-1"):
        yield "CPUQuotaPerSecUSec", ("t", _INFINITY)
        return
    per_second = int(quota) * 1_000_000 // int(period)
    yield "CPUQuotaPerSecUSec", ("t", -(-per_second // 10_000) * 10_000)
    if period != "100000":
        yield "CPUQuotaPeriodUSec", ("t", int(period))


def mask_of(numbers: Iterable[int]) -> bytes:
    """A set of numbers as systemd takes it: a bit for each, the lowest in the first byte."""
    bits = sum(1 << number for number in numbers)
    return bits.to_bytes((bits.bit_length() + 7) // 8 or 1, "little")


def devices_of(config: Mapping[str, Any]) -> Iterator[Property]:
    """The devices that the rules of config.json allow, in systemd's words, so that it does not allow more at a reload.

    It knows a list of what is allowed only, and may allow more than the rules do: they are in force besides.
    """
    if os.geteuid() != 0:
        return
    allowed: list[tuple[str, str]] = []
    rules = ((config.get("linux") or {}).get("resources") or {}).get("devices") or ()
    for rule in (*rules, *_ALWAYS):
        kind, numbers = rule.get("type") or "a", [rule.get("major"), rule.get("minor")]
        numbers = [None if number is None or number < 0 else number for number in numbers]
        if kind == "a" and numbers == [None, None]:
            if rule["allow"]:
                yield "DevicePolicy", ("s", "auto")
                return
            allowed.clear()
        elif rule["allow"]:
            for each in ("b", "c") if kind == "a" else (kind,):
                allowed += ((name, (rule.get("access") or "rwm").rstrip("a")) for name in _device_names(each, *numbers))
    yield "DevicePolicy", ("s", "strict")
    yield "DeviceAllow", ("a(ss)", allowed)


_ALWAYS: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *({"allow": True, "type": "c", "major": 1, "minor": minor} for minor in (3, 5, 7, 8, 9)),
    *({"allow": True, "type": "c", "major": 5, "minor": minor} for minor in (0, 2)),
    {"allow": True, "type": "c", "major": 136},
    {"allow": True, "type": "c", "major": 10, "minor": 200},
)


def _device_names(kind: str, major: int | None, minor: int | None) -> Iterator[str]:
    """``char-*``, ``char-pts`` (by /proc/devices) or ``/dev/char/1:3``; nothing for what systemd has no word for."""
    group = {"c": "char", "b": "block"}[kind]
    if major is None:
        yield f"{group}-*"
    elif minor is None:
        with open("/proc/devices") as file:
            characters, _, blocks = file.read().partition("Block devices:")
        lines = (line.split() for line in (characters if kind == "c" else blocks).splitlines())
        yield from {f"{group}-{words[1]}" for words in lines if len(words) == 2 and words[0] == str(major)}
    elif os.path.exists(f"/dev/{group}/{major}:{minor}"):
        yield f"/dev/{group}/{major}:{minor}"


#: Annotations of the form ``org.systemd.property.NAME``, whose values are texts as GVariant writes them.
ANNOTATION = "org.systemd.property."


def from_annotations(annotations: Mapping[str, str]) -> list[Property]:
    """The properties that the engine names: numbers, truth values and texts in quotes. OciError for others."""
    found: list[Property] = []
    for key, text in annotations.items():
        if key.startswith(ANNOTATION):
            name = key.removeprefix(ANNOTATION)
            if not (name.isalnum() and name.isascii() and name[0].isupper()):
                raise OciError(f"annotation {key}: {name} is not a property of a unit")
            found.append(_from_annotation(key, name, text.strip()))
    return found


def _from_annotation(key: str, name: str, text: str) -> Property:
    kind, _, number = text.rpartition(" ")
    signature = {"": "i", "uint32": "u", "uint64": "t", "int32": "i", "int64": "x"}.get(kind)
    if name.endswith("Sec") and not name.endswith("USec") and signature is not None and number.isdigit():
        return f"{name.removesuffix('Sec')}USec", ("t", int(number) * 1_000_000)
    if text in ("true", "false"):
        return name, ("b", text == "true")
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return name, ("s", text[1:-1])
    if signature is not None and number.removeprefix("-").isdigit():
        return name, (signature, int(number))
    raise OciError(f"annotation {key}: {text} is neither a number, nor true, nor false, nor a text in quotes")
