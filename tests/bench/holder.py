"""Keeps containers alive until its stdin ends: holder.py COUNT ROOTFS."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import mydocker
from mydocker import api


def main() -> None:
    count, rootfs = int(sys.argv[1]), sys.argv[2]
    threading.stack_size(256 << 10)
    limits = {"memory": "100m", "cpu_shares": 512, "pids_limit": 50}
    errors: list[BaseException] = []

    def hold() -> None:
        try:
            mydocker.run(["pause"], rootfs=rootfs, stdin=None, **limits)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for number, thread in enumerate(threads):
        thread.start()
        while number % 16 == 0 and len(running()) < number and not errors:  # not all at once
            time.sleep(0.005)
    while len(running()) < count and not errors:
        time.sleep(0.02)
    if not errors:
        print("ready", flush=True)
        sys.stdin.read()
    else:
        print(f"holder: {errors[0]!r}", file=sys.stderr, flush=True)
    for pid in running():
        os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    api.close()


def running() -> list[int]:
    """The children of this process that are `pause`."""
    found = []
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in file.read_text().split():
            try:
                if Path(f"/proc/{pid}/comm").read_text() == "pause\n":
                    found.append(int(pid))
            except OSError:
                pass
    return found


if __name__ == "__main__":
    main()
