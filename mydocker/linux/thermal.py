"""What the kernel tells of the heat of the CPUs."""

from __future__ import annotations

import os


def heat_of_cpus(directory: str = "/sys/devices/system/cpu") -> list[bytes]:
    """What tells how hot each CPU is, and so what others compute on it (moby, GHSA-6fw5-f8r9-fgfm)."""
    if not os.path.exists(f"{directory}/cpu0/thermal_throttle"):
        return []
    cpus = [name for name in os.listdir(directory) if name.startswith("cpu") and name[3:].isdigit()]
    return [os.fsencode(f"{directory.lstrip('/')}/{name}/thermal_throttle") for name in cpus]
