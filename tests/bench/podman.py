"""`podman run` of an image, with each runtime."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from measuring import Findings, Table, Target, in_turns, process, ratio, timed
from peers import HERE, MYDOCKER_OCI, prepared_host, tool

sys.path.append(str(HERE.parent / "engines"))

from engines import IMAGE, Podman, Runtime, write_image
from install import PODMAN, install
from pen import Pen

ROUNDS = 15
NAMES = ("mydocker-oci", "runc", "crun")


def measure() -> Findings:
    install(PODMAN)
    with prepared_host() as (peers, _), ExitStack() as stack:
        write_image(peers.add_busybox(), peers.scratch / "image.tar")
        # The pen has a /run of its own: the image, the storage and the runtimes' directories are elsewhere.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mydocker-bench-")))
        image = scratch / "image.tar"
        image.write_bytes((peers.scratch / "image.tar").read_bytes())
        pen = stack.enter_context(Pen("bench"))
        Podman(pen, scratch, Runtime("runc", tool("runc")), image)
        calls = {}
        for name in peers.runtimes(*NAMES):
            path = MYDOCKER_OCI if name == "mydocker-oci" else tool(name)
            command = ["podman", "--runtime", path, "run", "--rm", "--network=none", IMAGE, "true"]
            calls[f"podman run on {name}"] = timed(process(*pen.command(*command), environment=pen.environment))
        rows = in_turns(calls, ROUNDS)
        over = ratio(rows, "podman run on mydocker-oci", "podman run on runc")
        return Findings(
            [Table("`podman run --rm --network=none busybox true`", rows, "podman run on runc")],
            [Target("`podman run` with mydocker over with runc", over, 1.1)],
        )
