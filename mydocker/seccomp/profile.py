"""Docker's form of a profile, as ``--security-opt seccomp=FILE`` takes it, made into the OCI runtime spec's.

Docker's has conditions: a rule may be for some architectures, from some kernel on, or for containers with or without a
capability (docs.docker.com, "Seccomp security profiles for Docker"). The spec's own form is taken as well: it has none.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

#: uname(2)'s machine to the name in a rule's ``arches``, and that in ``archMap``.
_MACHINES = {
    "x86_64": ("amd64", "X86_64"),
    "i386": ("x86", "X86"),
    "i686": ("x86", "X86"),
    "aarch64": ("arm64", "AARCH64"),
    "armv6l": ("arm", "ARM"),
    "armv7l": ("arm", "ARM"),
    "armv8l": ("arm", "ARM"),
    "loongarch64": ("loongarch64", "LOONGARCH64"),
    "mips64": ("mips64", "MIPS64"),
    "ppc": ("ppc", "PPC"),
    "ppc64": ("ppc64", "PPC64"),
    "ppc64le": ("ppc64le", "PPC64LE"),
    "riscv64": ("riscv64", "RISCV64"),
    "s390": ("s390", "S390"),
    "s390x": ("s390x", "S390X"),
}

_PASSED_ON = ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: str, release: str
) -> dict[str, Any] | None:
    """``linux.seccomp`` of a container with these capabilities (its bounding set), on a host with this machine and
    kernel release. None for an empty profile, which for Docker is none. ValueError, which says what is wrong.
    """
    _check(isinstance(profile, dict), "it is not a JSON object")
    rules = profile.get("syscalls") or []
    if not profile.get("defaultAction") and not rules:
        return None
    _check(isinstance(rules, list), "syscalls is not a list")
    host = _MACHINES.get(machine, (machine, machine.upper()))
    architectures = profile.get("architectures") or []
    mapped = profile.get("archMap") or []
    _check(not (architectures and mapped), "it has both architectures and archMap: keep one of them")
    for row in mapped:
        _check(isinstance(row, dict) and "architecture" in row, "a row of archMap has no architecture")
        if row["architecture"] == f"SCMP_ARCH_{host[1]}":
            architectures = [row["architecture"], *(row.get("subArchitectures") or ())]
    resolved = {name: profile[name] for name in _PASSED_ON if profile.get(name) is not None}
    kernel = _version(release)
    resolved["architectures"] = list(architectures)
    resolved["syscalls"] = [_plain(rule) for rule in rules if _applies(rule, capabilities, host[0], kernel)]
    return resolved


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _plain(rule: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: rule[name] for name in ("names", "action", "errnoRet", "args") if rule.get(name) is not None}
    if rule.get("name"):  # the old form, one name for each rule
        _check(not plain.get("names"), f'the rule for {rule["name"]} has both "name" and "names": keep one of them')
        plain["names"] = [rule["name"]]
    return plain


def _applies(rule: Any, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> bool:
    _check(isinstance(rule, dict), "an entry of syscalls is not an object")
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    _check(isinstance(excludes, dict) and isinstance(includes, dict), "includes and excludes of a rule are objects")
    if machine in (excludes.get("arches") or ()) or any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= _version(includes["minKernel"])


def _version(text: Any) -> tuple[int, int]:
    """The first two numbers of a kernel's release, such as ``6.1.0-18-amd64``."""
    numbers: list[int] = []
    for part in str(text).split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        _check(bool(digits), f'"{text}" is not a version of a kernel: write it as in 4.8')
        numbers.append(int(digits))
    _check(len(numbers) == 2, f'"{text}" is not a version of a kernel: write it as in 4.8')
    return numbers[0], numbers[1]
