"""The size of /dev/shm, which holds POSIX shared memory (shm_overview(7)): ``--shm-size``."""

from __future__ import annotations

from mydocker import Amendment, Probe, ResourceField, Tmpfs, hookimpl
from mydocker.resources import format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mydocker import ResourceConfig


def parse_shm_size(text: str) -> int:
    """Bytes, one at least: 0 would be no bound at all (tmpfs(5))."""
    size = parse_size(text)
    if size == 0:
        raise ValueError(f'"{text}" is no size for /dev/shm: write more than 0, as in 64m, which is the default')
    return size


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="shm_size",
            flags=("--shm-size",),
            parse=parse_shm_size,
            metavar="SIZE",
            help="The size of /dev/shm, in bytes or with a unit (b, k, m, g); 64m by default.",
        ),
    )


@hookimpl
def mydocker_probe() -> Probe:
    return Probe()


@hookimpl
def mydocker_amend(config: ResourceConfig) -> Amendment:
    return Amendment(mounts=(Tmpfs(destination="/dev/shm", size=config["shm_size"]),))


@hookimpl
def mydocker_explain(config: ResourceConfig) -> tuple[str, ...]:
    return (f"mount a tmpfs of {format_size(config['shm_size'])} on /dev/shm",)
