"""``linux.seccomp`` of the OCI runtime spec made into a BPF program (config-linux.md, "Seccomp").

What the spec leaves open is as in runc, for which the profiles in use are written: a system call that libseccomp does
not know is passed over, and so is a rule with the default action; where two conditions of a rule are about one argument
each condition is a rule of its own, so that any of them is enough, and else all of them must hold.
"""

from __future__ import annotations

from mydocker.linux import libseccomp, seccomp
from mydocker.seccomp import enosys, shrinking
from mydocker.seccomp.names import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_EPERM = 1
#: Those whose value carries a number.
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
#: From so many names on, a binary tree is worth it.
_MANY = 32


def compile_filter(profile: Mapping[str, Any]) -> tuple[bytes, int]:
    """The program and the flags to load it with.

    ValueError, which names the wrong value; `libseccomp.Missing`; OSError from libseccomp.
    """
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    if default == seccomp.NOTIFY:
        raise ValueError("SCMP_ACT_NOTIFY cannot be used as default action")
    architectures = [_architecture(name) for name in profile.get("architectures") or ()]
    rules = profile.get("syscalls") or []
    names = {name for rule in rules for name in rule.get("names") or ()}
    wanted = [found for rule in rules for found in _rules(rule, default)]
    flags = _flags(profile.get("flags"), listens=any(action == seccomp.NOTIFY for action, _, _, _ in wanted))
    _check_actions({default, *(action for action, _, _, _ in wanted)})
    native = libseccomp.native_architecture()
    with libseccomp.Rules(default) as made:
        for token in architectures:
            made.add_architecture(token)
        if len(wanted) > _MANY:
            made.use_binary_tree()
        for action, name, number, comparisons in wanted:
            try:
                made.add(action, number, comparisons)
            except OSError as e:
                raise ValueError(f"libseccomp does not take the rule for {name}: {e.strerror}") from None
        program = made.export()
    if default & seccomp.ACTION not in (seccomp.ALLOW, seccomp.LOG_AND_ALLOW, seccomp.TRACE):
        program = enosys.stub(list(dict.fromkeys([native, *architectures])), names) + program
    program = shrinking.shrunk(program)
    if len(program) > seccomp.MOST_INSTRUCTIONS * seccomp.INSTRUCTION:
        raise ValueError(
            f"it makes a program of {len(program) // seccomp.INSTRUCTION} instructions, and the kernel takes no more "
            f"than {seccomp.MOST_INSTRUCTIONS}: give it fewer rules"
        )
    return program, flags


def known_actions() -> list[str]:
    """The actions that this kernel has, by name."""
    return [name for name, value in ACTIONS.items() if seccomp.knows_action(value)]


def known_flags() -> list[str]:
    """The flags that this kernel has, by name."""
    listening = {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": seccomp.NEW_LISTENER}
    return [name for name, value in FLAGS.items() if seccomp.knows_flags(value | listening.get(name, 0))]


def known_architectures() -> list[str]:
    """The architectures that this libseccomp has. `libseccomp.Missing` if there is none."""
    return [name for name in ARCHITECTURES if libseccomp.architecture(_plain_name(name))]


def _plain_name(architecture: str) -> str:
    return architecture.removeprefix("SCMP_ARCH_").lower()


def _architecture(name: Any) -> int:
    token = libseccomp.architecture(_plain_name(name)) if isinstance(name, str) else 0
    if not token:
        raise ValueError(f'unknown architecture "{name}": use one of {", ".join(ARCHITECTURES)}')
    return token


def _action(name: Any, number: Any) -> int:
    value = ACTIONS.get(name) if isinstance(name, str) else None
    if value is None:
        raise ValueError(f'unknown action "{name}": use one of {", ".join(ACTIONS)}')
    if name not in _WITH_NUMBER:
        if number is not None:
            raise ValueError(f"{name} takes no errno, and {number} is given")
        return value
    if number is None:
        number = _EPERM
    if not isinstance(number, int) or not 0 <= number <= 0xFFFF:
        raise ValueError(f"{number} is not an errno for {name}: write a number up to 65535")
    return value | number


def _rules(
    rule: Mapping[str, Any], default: int
) -> Iterable[tuple[int, str, int, tuple[libseccomp.Comparison, ...]]]:
    """The rules to add for one entry of ``syscalls``: action, name and number of the call, what must hold."""
    names = rule.get("names")
    if not names:
        raise ValueError("an entry of syscalls has no names")
    action = _action(rule.get("action"), rule.get("errnoRet"))
    comparisons = [_comparison(condition, names[0]) for condition in rule.get("args") or ()]
    if action == seccomp.NOTIFY and "write" in names:
        # The child tells the runtime by a write(2) that there is a listener, and nobody would answer for that one yet.
        raise ValueError("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    if action == default:
        return
    several = len({comparison.arg for comparison in comparisons}) < len(comparisons)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f'"{name}" is not a name of a system call')
        number = libseccomp.resolve(name)
        if number == libseccomp.UNKNOWN:
            continue
        if several:
            for comparison in comparisons:
                yield action, name, number, (comparison,)
        else:
            yield action, name, number, tuple(comparisons)


def _comparison(condition: Mapping[str, Any], name: str) -> libseccomp.Comparison:
    operator = OPERATORS.get(condition.get("op", ""))
    if operator is None:
        raise ValueError(f'unknown operator "{condition.get("op")}" for {name}: use one of {", ".join(OPERATORS)}')
    index = condition.get("index")
    if not isinstance(index, int) or not 0 <= index <= 5:
        raise ValueError(f"{index} is not the index of an argument of {name}: a system call has six, from 0 to 5")
    values = (condition.get("value", 0), condition.get("valueTwo") or 0)
    for value in values:
        if not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise ValueError(f"{value} is not a value of an argument of {name}: it has 64 bits and no sign")
    return libseccomp.Comparison(index, operator, *values)


def _flags(names: Any, *, listens: bool) -> int:
    listener = seccomp.NEW_LISTENER if listens else 0
    if names is None:
        # As runc and crun: the process keeps its speculation, which the kernel once took from all that had a filter.
        return listener | (seccomp.SPEC_ALLOW if seccomp.knows_flags(seccomp.SPEC_ALLOW) else 0)
    flags = 0
    for name in names:
        if name not in FLAGS:
            raise ValueError(f'unknown flag "{name}": use one of {", ".join(FLAGS)}')
        flags |= FLAGS[name]
        if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" and not listens:
            raise ValueError(f"{name} is about SCMP_ACT_NOTIFY, and no rule has that")
        if not seccomp.knows_flags(FLAGS[name] | (listener if name.endswith("_RECV") else 0)):
            raise ValueError(f"this kernel does not have {name}")
    if listener and flags & seccomp.TSYNC:
        flags |= seccomp.TSYNC_ESRCH  # the two alone would both want the return value (seccomp(2))
    return flags | listener


def _check_actions(values: Iterable[int]) -> None:
    for value in values:
        if not seccomp.knows_action(value & seccomp.ACTION):
            name = next(name for name, action in ACTIONS.items() if action == value & seccomp.ACTION)
            raise ValueError(f"this kernel does not have {name}")
