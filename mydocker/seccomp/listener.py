"""The agent of ``SCMP_ACT_NOTIFY``: a process that decides about system calls in the kernel's place."""

from __future__ import annotations

import json
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Seconds for an agent that does not take what it is sent.
_PATIENCE = 10.0


def send(path: str, metadata: str, fd: int, state: Mapping[str, Any], pid: int) -> None:
    """One connection, one container process state, one descriptor (config-linux.md, "The Container Process State")."""
    message: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
    if metadata:
        message["metadata"] = metadata
    data = json.dumps({**message, "state": state}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(_PATIENCE)
        agent.connect(path)
        sent = socket.send_fds(agent, [data], [fd])
        if sent < len(data):  # an agent that has it all may have closed its end, and to send nothing is to send
            agent.sendall(data[sent:])  # "the file descriptors MUST be sent only in the first call"
