"""``--net-rate``: how fast the devices in the container's network namespace may send and receive.

The kernel's traffic control does it (tc(8)). The namespace may be the container's own, or one that an engine has set
up and moved its devices into. pyroute2 is loaded when a rate is asked for, and not before.
"""

from __future__ import annotations

import os

from mydocker import Amendment, LimitError, Probe, ResourceField, UnsupportedLimit, Watch, hookimpl
from mydocker.resources import format_size, parse_size
from mydocker_bandwidth.rates import Limits, format_rate, parse_rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mydocker import ResourceConfig
    from mydocker.cgroups.group import ContainerCgroup
    from mydocker.cgroups.layout import Layout
    from mydocker.spec import Spec
    from mydocker_bandwidth.container import ShapedNamespace

MYDOCKER_API = 1

_RATES = ("net_rate", "net_rate_in", "net_rate_out")

#: Container's cgroup path to its network namespace.
_shaped: dict[str, ShapedNamespace] = {}


@hookimpl
def mydocker_fields() -> tuple[ResourceField, ...]:
    return (
        ResourceField(
            name="net_rate",
            flags=("--net-rate",),
            parse=parse_rate,
            metavar="RATE",
            help="The most that each network device may send, and receive: bits per second, as in 10mbit or 500kbit.",
        ),
        ResourceField(
            name="net_rate_in",
            flags=("--net-rate-in",),
            parse=parse_rate,
            metavar="RATE",
            help="The same for what is received only, in bits per second.",
        ),
        ResourceField(
            name="net_rate_out",
            flags=("--net-rate-out",),
            parse=parse_rate,
            metavar="RATE",
            help="The same for what is sent only, in bits per second.",
        ),
        ResourceField(
            name="net_burst",
            flags=("--net-burst",),
            parse=parse_size,
            metavar="SIZE",
            help="How many bytes may pass at once after a pause (default: 10 ms at the rate, and at least 16k).",
        ),
    )


@hookimpl
def mydocker_probe(layout: Layout) -> Probe:
    return Probe(problem=_problem(Limits(send=1_000_000, receive=1_000_000)))


@hookimpl
def mydocker_validate(config: ResourceConfig, layout: Layout) -> None:
    fields = [name for name in (*_RATES, "net_burst") if name in config]
    problem = _problem(limits_of(config))
    if problem:
        raise UnsupportedLimit(fields[0], problem)  # best-effort limits drop one after the other
    if fields == ["net_burst"]:
        raise LimitError("net_burst", "it belongs to a rate: give --net-rate, --net-rate-in or --net-rate-out too")


@hookimpl
def mydocker_amend(config: ResourceConfig, spec: Spec, cgroup: ContainerCgroup) -> Amendment:
    if spec.network == "host":
        name = next(name for name in _RATES if name in config)
        raise LimitError(name, "with --network host it would slow the whole host down: leave one of them out")
    cgroup.claim("traffic control of the network devices")
    limits, path, own = limits_of(config), cgroup.path, spec.network == "none"

    def shape(pid: int) -> None:
        from mydocker_bandwidth.container import ShapedNamespace

        # Known before anything is done in it, so that remove undoes what fails half-way.
        _shaped[path] = ShapedNamespace(limits, outlives_container=not own)
        _shaped[path].shape_all()

    return Amendment(network=shape)


@hookimpl
def mydocker_watch(config: ResourceConfig, cgroup: ContainerCgroup) -> tuple[Watch, ...]:
    """Devices that come later: an engine may connect a running container to another network."""
    namespace = _shaped[cgroup.path]
    return (Watch(check=namespace.shape_new, fd=namespace.events.fileno()),)


@hookimpl
def mydocker_usage(config: ResourceConfig, cgroup: ContainerCgroup) -> Mapping[str, Any]:
    """What went through the limits. Nothing in another process than the runtime, which has no way into them."""
    namespace = _shaped.get(cgroup.path)
    return namespace.figures() if namespace is not None else {}


@hookimpl
def mydocker_remove(cgroup: ContainerCgroup) -> None:
    namespace = _shaped.pop(cgroup.path, None)
    if namespace is not None:
        namespace.release()


@hookimpl
def mydocker_explain(config: ResourceConfig, layout: Layout) -> tuple[str, ...]:
    limits = limits_of(config)
    lines = []
    if limits.send:
        lines.append(f"tbf on each device of the container's network namespace: send {_explained(limits, limits.send)}")
    if limits.receive:
        lines.append(
            "an ifb for each device of the container's network namespace, with tbf: "
            f"receive {_explained(limits, limits.receive)}"
        )
    return (*lines, "watch the namespace for further devices")


def limits_of(config: ResourceConfig) -> Limits:
    both = config.get("net_rate", 0)
    return Limits(
        send=config.get("net_rate_out", both), receive=config.get("net_rate_in", both), burst=config.get("net_burst", 0)
    )


def _explained(limits: Limits, rate: int) -> str:
    return f"{format_rate(rate)}, burst {format_size(limits.burst_at(rate))}"


def _problem(limits: Limits) -> str:
    """Why this host cannot do it, or empty: it is tried out in a network namespace that nobody else sees."""
    if os.geteuid() != 0:
        return "only root can make network devices and limit them"
    try:
        from mydocker_bandwidth.container import problem_of
    except ImportError as e:
        return f"pyroute2 cannot be loaded ({e}): install it again"
    return problem_of(limits)
