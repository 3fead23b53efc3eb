"""A small org.freedesktop.systemd1: it makes the cgroup of a transient scope, and notes what it was told.

``fake_systemd.py NOTES CGROUP DIRECTORY...``: the cgroup is made below each directory. It ends with its bus.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from jeepney import HeaderFields, Message, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import DBusAddress

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")


class Systemd:
    def __init__(self, notes: Path, cgroup: str, directories: list[str]) -> None:
        self._notes = notes
        self._cgroup = cgroup
        self._directories = directories
        self._told: dict[str, dict] = {}
        self._stopped: list[str] = []
        self._bus = open_dbus_connection(bus="SYSTEM")
        self._bus.send_and_get_reply(message_bus.RequestName(NAME))
        self._save()

    def _save(self) -> None:
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps({"units": self._told, "stopped": self._stopped}, default=list))
        new.replace(self._notes)

    def serve(self) -> None:
        while True:
            try:
                message = self._bus.receive()
            except (ConnectionError, OSError, EOFError):
                return
            if message.header.message_type is MessageType.method_call:
                self._answer(message)

    def _answer(self, message: Message) -> None:
        member = message.header.fields[HeaderFields.member]
        try:
            signature, body, job = getattr(self, f"do_{member}")(*message.body)
        except (AttributeError, KeyError, OSError) as e:
            self._bus.send(new_error(message, f"{NAME}.Refused", "s", (f"{member}: {e!r}",)))
            return
        self._bus.send(new_method_return(message, signature, body))
        if job:
            self._bus.send(new_signal(MANAGER, "JobRemoved", "uoss", (1, "/job/1", job, "done")))
            self._save()

    def do_Subscribe(self):
        return "", (), ""

    def do_StartTransientUnit(self, unit, mode, properties, auxiliary):
        values = {name: value for name, (_, value) in properties}
        if unit in self._told and unit not in self._stopped:
            raise KeyError("unit exists")
        self._told[unit] = values
        for directory in self._directories:
            place = f"{directory}{self._cgroup}/{unit}"
            os.makedirs(place)
            for pid in values["PIDs"]:
                Path(place, "cgroup.procs").write_text(str(pid))
        return "o", ("/job/1",), unit

    def do_StopUnit(self, unit, mode):
        self._stopped.append(unit)
        return "o", ("/job/1",), unit

    def do_GetUnit(self, unit):
        self._unit = unit
        return "o", ("/unit/1",), ""

    def do_Get(self, interface, name):
        assert (interface, name) == (f"{NAME}.Scope", "ControlGroup")
        return "v", (("s", f"{self._cgroup}/{self._unit}"),), ""

    def do_SetUnitProperties(self, unit, runtime, properties):
        self._told[unit].update({name: value for name, (_, value) in properties})
        self._save()
        return "", (), ""


if __name__ == "__main__":
    Systemd(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]).serve()
