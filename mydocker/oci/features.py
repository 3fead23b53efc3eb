"""features: print, as JSON, what of config.json is understood here (runtime-spec, features.md)."""

from __future__ import annotations

import sys

from mydocker import plain_json
from mydocker.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mydocker.oci.main import Call
    from mydocker.plugins import Registry

OPTIONS: tuple[Option, ...] = ()
ARGUMENTS = ""


def main(call: Call) -> int:
    from mydocker import plugins

    sys.stdout.write(plain_json.dumps(document(plugins.load()), indent=2) + "\n")
    return 0


def document(registry: Registry) -> dict[str, Any]:
    """The features document. Each list is that of the module which puts it in force."""
    from mydocker.linux import capabilities, numa
    from mydocker.oci import config, container, mount_options, namespaces, resources
    from mydocker.version import __version__

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": container.SPEC_VERSION,
        "hooks": list(config.HOOKS),
        "mountOptions": sorted(mount_options.KNOWN),
        "linux": {
            "namespaces": sorted(namespaces.KINDS),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": _limits_rdma(registry)},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
            "memoryPolicy": {"modes": list(numa.MODES), "flags": list(numa.FLAGS)},
        },
        "annotations": {"mydocker.version": __version__, **_libseccomp_version()},
        # An annotation of a container sets a limit of it; so an engine asks whether its user may.
        "potentiallyUnsafeConfigAnnotations": [resources.PREFIX],
    }


def _limits_rdma(registry: Registry) -> bool:
    """A limit is a plugin's: there is one for RDMA, and it may be turned off."""
    return any(field.oci.startswith("linux.resources.rdma") for field in registry.fields)


def _seccomp() -> dict[str, Any]:
    from mydocker.linux import seccomp
    from mydocker.seccomp import names

    return {
        "enabled": bool(_libseccomp_version()),
        "actions": sorted(names.ACTIONS),
        "operators": sorted(names.OPERATORS),
        "archs": sorted(names.ARCHITECTURES),
        "knownFlags": sorted(names.FLAGS),
        "supportedFlags": sorted(
            name
            for name, bit in names.FLAGS.items()
            if seccomp.knows_flags(bit) or seccomp.knows_flags(bit | seccomp.NEW_LISTENER)  # some are for that only
        ),
    }


def _libseccomp_version() -> dict[str, str]:
    """The annotation by which runtimes tell it; empty where the library is not installed."""
    from mydocker.linux import libseccomp

    try:
        return {"io.github.seccomp.libseccomp.version": ".".join(map(str, libseccomp.version()))}
    except libseccomp.Missing:
        return {}
