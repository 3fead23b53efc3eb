"""The picture of a `mydocker.profile.Profile`: memory, CPU, pressure, I/O and tasks over time, a panel each.

A panel is drawn for what was counted; what was not is named at the foot. Needs matplotlib, the extra ``profile``.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mydocker.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from mydocker.profile import Moment
    from mydocker.result import Result, Usage

#: After Okabe and Ito ("Color Universal Design"), so that people who do not see red or green tell them apart.
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072b2", "#e69f00", "#009e73", "#c1272d", "#b5609a"
GREY = "#666666"
#: A limit this many times higher than what was used is written in the panel and not drawn: its line would flatten all.
FAR = 5.0
#: A rate is a mean over so many seconds, of a short run and at least of a longer one, and over so many intervals at
#: most. Over less, counts in clock ticks jump, and use goes over its quota, which is one for each 0.1 s.
SHORT_MEAN, MEAN, MOST_MEANS = 0.1, 0.25, 200

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a command may hold a $
    "svg.fonttype": "none",
    "svg.hashsalt": "mydocker",
}


class Series(Value):
    """One curve: ``values[i]`` holds from ``seconds[i]`` on, or is met there."""

    label: str
    colour: str
    seconds: tuple[float, ...]
    values: tuple[float, ...]


class Panel(Value):
    """One thing over time, with what bounds it.

    ``text``    how a value is written at the axis and at marks; ``binary`` and ``whole`` say which values are round.
    ``limit``   a curve of its own, for it may change during the run.
    ``peak``    when and how much; where there is none, the curves are rates, which hold from one point to the next.
    ``top``     the upper end of the axis where that does not follow from the curves.
    """

    title: str
    text: Callable[[float], str]
    curves: tuple[Series, ...]
    limit: Series | None = None
    peak: tuple[float, float] | None = None
    top: float | None = None
    binary: bool = False
    whole: bool = False
    #: whether a single curve, too, has to say what it is
    legend: bool = False


def draw(moments: Sequence[Moment], result: Result, file: str, kind: str) -> None:
    """Write the picture to ``file``; ``kind`` is ``svg``, ``png`` or ``pdf``."""
    import warnings

    moments = [*moments, _end(moments, result)]
    duration = moments[-1].seconds
    panels = panels_of(moments, result)
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as a command's letter that the font lacks: it shows as a box
        height = 1.3 + 1.75 * max(len(panels), 1)
        engine = ConstrainedLayoutEngine(rect=(0, 0.03, 1, 0.97 - 0.62 / height))
        figure = Figure(figsize=(10, height), layout=engine)
        figure.text(0.012, 1 - 0.10 / height, _command(result), va="top", fontsize=12, weight="bold")
        figure.text(0.012, 1 - 0.37 / height, _summary(result), va="top", fontsize=9.5, color=GREY)
        figure.text(0.012, 0.012, _footnote(moments, panels), fontsize=7.5, color=GREY)
        every = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)
        axes: list[Axes] = [row[0] for row in every]
        for panel, ax in zip(panels, axes, strict=False):
            _draw_panel(ax, panel, duration)
        _draw_time(axes[-1], duration)
        _draw_events(axes, moments, result, duration)
        figure.savefig(file, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)


def _end(moments: Sequence[Moment], result: Result) -> Moment:
    """What was counted in all, at the end; of what the container held, nothing is left then."""
    from mydocker.profile import Moment

    duration = max([result.wall_seconds, *(moment.seconds for moment in moments)]) or 1e-3
    counted = result.usage.replace(memory_current=None, memory_swap=None, pids_current=None)
    return Moment(seconds=duration, usage=counted)


def panels_of(moments: Sequence[Moment], result: Result) -> list[Panel]:
    """The panels for which there are figures, the most asked for first."""
    found = [
        _memory(moments, result),
        _cpu(moments),
        _pressure(moments),
        _io(moments),
        _tasks(moments, result),
    ]
    return [panel for panel in found if panel is not None]


def _memory(moments: Sequence[Moment], result: Result) -> Panel | None:
    used = _levels(moments, "memory", BLUE, lambda usage: usage.memory_current)
    if used is None:
        return None
    swap = _levels(moments, "swap", ORANGE, lambda usage: usage.memory_swap)
    highest = max(used.values)
    at = used.seconds[used.values.index(highest)]
    return Panel(
        title="Memory",
        text=size_text,
        curves=(used, swap) if swap is not None and any(swap.values) else (used,),
        limit=_levels(moments, "limit", RED, lambda usage: usage.memory_limit),
        # Between two moments there may have been more: the kernel has seen it.
        peak=(at, max(highest, result.usage.memory_peak or 0)),
        binary=True,
    )


def _cpu(moments: Sequence[Moment]) -> Panel | None:
    used = _rates(moments, "in use", BLUE, lambda usage: usage.cpu_user + usage.cpu_system)
    if used is None or not any(used.values):
        return None
    waiting = _rates(moments, "held back by the quota", ORANGE, lambda usage: usage.cpu_throttled)
    return Panel(
        title="CPUs",
        text=lambda value: f"{value:g}",
        curves=(used, waiting) if waiting is not None and any(waiting.values) else (used,),
        limit=_levels(moments, "limit", RED, lambda usage: usage.cpu_limit),
    )


def _pressure(moments: Sequence[Moment]) -> Panel | None:
    """In per cent of the time: for how much of it some task waited."""
    colours = {"memory": BLUE, "cpu": ORANGE, "io": GREEN}
    names = sorted({name for moment in moments for name in moment.usage.pressure})
    curves = []
    for name in names:

        def waited(usage: Usage, name: str = name) -> float | None:
            return usage.pressure.get(name, {}).get("some_seconds")

        rates = _rates(moments, f"waiting for {name}", colours.get(name, PURPLE), waited)
        if rates is not None:
            curves.append(rates.replace(values=tuple(min(100 * value, 100.0) for value in rates.values)))
    if not curves:
        return None
    return Panel(title="Pressure", text=lambda value: f"{value:g} %", curves=tuple(curves), top=100.0, legend=True)


def _io(moments: Sequence[Moment]) -> Panel | None:
    read = _rates(moments, "read", GREEN, lambda usage: usage.io_read_bytes)
    written = _rates(moments, "written", PURPLE, lambda usage: usage.io_written_bytes)
    curves = tuple(series for series in (read, written) if series is not None)
    if not any(any(series.values) for series in curves):
        return None
    return Panel(title="Block I/O", text=lambda value: f"{size_text(value)}/s", curves=curves, binary=True, legend=True)


def _tasks(moments: Sequence[Moment], result: Result) -> Panel | None:
    tasks = _levels(moments, "tasks", PURPLE, lambda usage: usage.pids_current)
    if tasks is None:
        return None
    highest = max(tasks.values)
    at = tasks.seconds[tasks.values.index(highest)]
    return Panel(
        title="Tasks",
        text=lambda value: f"{value:g}",
        curves=(tasks,),
        limit=_levels(moments, "limit", RED, lambda usage: usage.pids_limit),
        peak=(at, max(highest, result.usage.pids_peak or 0)),
        whole=True,
    )


def _levels(
    moments: Sequence[Moment], label: str, colour: str, figure: Callable[[Usage], float | None]
) -> Series | None:
    known = [(moment.seconds, value) for moment in moments if (value := figure(moment.usage)) is not None]
    if not known:
        return None
    seconds, values = zip(*known, strict=True)
    return Series(label=label, colour=colour, seconds=seconds, values=values)


def _rates(moments: Sequence[Moment], label: str, colour: str, count: Callable[[Usage], float | None]) -> Series | None:
    """How fast a count grew, as means over intervals that are long enough for the kernel's clock ticks."""
    known = [(moment.seconds, value) for moment in moments if (value := count(moment.usage)) is not None]
    if len(known) < 2:
        return None
    duration = known[-1][0] - known[0][0]
    shortest = max(SHORT_MEAN, min(MEAN, duration / 20), duration / MOST_MEANS)
    seconds: list[float] = [known[0][0]]
    values: list[float] = []
    since, before = known[0]
    last = len(known) - 1
    for index, (now, value) in enumerate(known[1:], 1):
        enough = shortest if index < last else shortest / 2
        if now - since >= enough or (index == last and not values and now > since):
            values.append(max(0.0, value - before) / (now - since))
            seconds.append(now)
            since, before = now, value
    if not values:
        return None
    return Series(label=label, colour=colour, seconds=tuple(seconds), values=(*values, values[-1]))


def _draw_panel(ax: Axes, panel: Panel, duration: float) -> None:
    _draw_curves(ax, panel, duration)
    highest = max([value for curve in panel.curves for value in curve.values] + [panel.peak[1] if panel.peak else 0.0])
    top = panel.top or max(highest, 1e-9) * 1.25
    if panel.limit is not None:
        near = [value for value in panel.limit.values if value <= FAR * highest]
        if near:
            top = max(top, max(near) * 1.18)
            _draw_limit(ax, panel.limit, panel, duration)
        else:
            _note_limit(ax, panel.limit, panel)
    if panel.peak is not None:
        _mark_peak(ax, panel, duration)
    ax.set_title(panel.title, loc="left", fontsize=10, weight="bold", color="#222222", pad=5)
    _draw_axis(ax, panel, top)


def _draw_curves(ax: Axes, panel: Panel, duration: float) -> None:
    """The first one with the area below it."""
    rates = panel.peak is None
    step: Literal["post"] | None = "post" if rates or panel.whole else None
    for curve in panel.curves:
        seconds, values = curve.seconds, curve.values
        if not rates and seconds[-1] < duration:
            seconds, values = (*seconds, duration), (*values, values[-1])
        style = "steps-post" if step else "default"
        ax.plot(seconds, values, color=curve.colour, linewidth=1.4, drawstyle=style, label=curve.label)
        if curve is panel.curves[0]:
            ax.fill_between(seconds, values, step=step, color=curve.colour, alpha=0.15, linewidth=0)
    if len(panel.curves) > 1 or panel.legend:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0.1, 0.99),
            ncols=len(panel.curves),
            frameon=False,
            fontsize=8.5,
            borderaxespad=0,
            handlelength=1.4,
        )


def _draw_axis(ax: Axes, panel: Panel, top: float) -> None:
    ax.set_ylim(0, top)
    if panel.binary:
        ax.set_yticks(_size_ticks(top))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=panel.whole))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: panel.text(value)))


def _note_limit(ax: Axes, limit: Series, panel: Panel) -> None:
    text = f"limit {panel.text(limit.values[-1])}, far above"
    ax.text(1.0, 1.03, text, transform=ax.transAxes, ha="right", va="bottom", color=RED, fontsize=8.5)


def _draw_limit(ax: Axes, limit: Series, panel: Panel, duration: float) -> None:
    """A step where it was changed during the run, labelled with each value it had."""
    seconds, values = (*limit.seconds, duration), (*limit.values, limit.values[-1])
    ax.plot(seconds, values, color=RED, linewidth=1.3, linestyle=(0, (5, 3)), drawstyle="steps-post")
    changes = [index for index, value in enumerate(values) if index == 0 or value != values[index - 1]]
    for index in changes:
        at, text = seconds[index] + 0.006 * duration, f"limit {panel.text(values[index])}"
        ax.text(at, values[index], text, color=RED, fontsize=8.5, va="bottom", ha="left", zorder=4)


def _mark_peak(ax: Axes, panel: Panel, duration: float) -> None:
    assert panel.peak is not None
    at, value = panel.peak
    colour = panel.curves[0].colour
    ax.plot([at], [value], marker="o", markersize=4.5, color=colour, clip_on=False, zorder=5)
    right = at < duration * 0.8
    ax.annotate(
        f"peak {panel.text(value)}",
        (at, value),
        xytext=(6 if right else -6, 5),
        textcoords="offset points",
        ha="left" if right else "right",
        color=colour,
        fontsize=8.5,
        weight="bold",
        zorder=6,
    )


def _draw_time(ax: Axes, duration: float) -> None:
    ax.set_xlim(0, duration)
    ax.set_xticks(_time_ticks(duration))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: time_text(value, duration)))
    ax.set_xlabel("time since the command began")


def _draw_events(axes: Sequence[Axes], moments: Sequence[Moment], result: Result, duration: float) -> None:
    """A line through all panels where the kernel killed for memory, and where the run was stopped."""
    events: list[tuple[float, str]] = []
    kills = 0
    for moment in moments:
        if moment.usage.oom_kills > kills:
            kills = moment.usage.oom_kills
            events.append((moment.seconds, "OOM kill"))
    if result.reason not in ("exited", "signaled"):
        if result.reason == "oom":
            events = [event for event in events if event[0] < duration * 0.97]
        events.append((duration, _STOPS.get(result.reason, result.reason)))
    elif result.oom_kills > kills:
        events.append((duration, "OOM kill"))
    for at, label in events:
        for ax in axes:
            ax.axvline(at, color=RED, linewidth=2.2 if at == duration else 1.2, alpha=0.9, clip_on=False)
        axes[0].text(
            at,
            1.02,
            f"{label} ▾",
            transform=axes[0].get_xaxis_transform(),
            color=RED,
            fontsize=9,
            weight="bold",
            ha="right" if at > duration / 2 else "left",
            va="bottom",
        )


_STOPS = {"oom": "out of memory", "timeout": "timeout"}


def _command(result: Result) -> str:
    text = " ".join(" ".join(_quoted(os.fsencode(arg).decode(errors="replace")) for arg in result.args).split())
    return text if len(text) <= 95 else f"{text[:94]}…"


def _quoted(word: str) -> str:
    """For the eye: the quotes that the shell needs around a quote would be more than the word."""
    return f'"{word}"' if "'" in word and '"' not in word else shlex.quote(word)


def _summary(result: Result) -> str:
    """One line: how it ended, how long it took, what it used."""
    parts = [f"exit code {result.exit_code}"]
    if result.reason not in ("exited", "signaled"):
        parts[0] += f" ({_STOPS.get(result.reason, result.reason)})"
    parts.append(f"{time_text(result.wall_seconds, result.wall_seconds)} of time")
    parts.append(f"{time_text(result.cpu_user + result.cpu_system, result.wall_seconds)} of CPU")
    if result.memory_peak is not None:
        parts.append(f"{size_text(result.memory_peak)} of memory at most")
    return "  ·  ".join(parts)


def _footnote(moments: Sequence[Moment], panels: Sequence[Panel]) -> str:
    shown = {panel.title for panel in panels}
    missing = [title.lower() for title in ("Memory", "Pressure") if title not in shown]
    count = f"{len(moments) - 1} moments" if len(moments) != 2 else "one moment"
    return f"{count} kept" + (f"; not counted on this host: {', '.join(missing)}" if missing else "")


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size: float) -> str:
    """``61.5 MiB``: three digits are enough for a picture."""
    for unit in _UNITS:
        if abs(size) < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.3g} {unit}"


def _size_ticks(top: float) -> list[float]:
    """Some four round numbers of a binary unit between 0 and ``top``."""
    unit = 1.0
    while top / unit >= 1024:
        unit *= 1024
    for step in (unit * digit * 10**power for power in range(-2, 4) for digit in (1, 2, 5)):
        if top / step <= 5:
            break
    return [step * count for count in range(int(top / step) + 1)]


def _time_ticks(duration: float) -> list[float]:
    """Some ten round times from 0 on: of seconds, minutes or hours, as a clock has them."""
    clock = [60.0 * minutes for minutes in (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)]
    small = [digit * 10.0**power for power in range(-6, 2) for digit in (1, 2, 5)]
    days = [86400.0 * digit * 10**power for power in range(5) for digit in (1, 2, 5)]
    steps = [*(step for step in small if step <= 10), *clock, *days]
    step = next((step for step in steps if duration / step <= 11), duration)
    return [step * count for count in range(int(duration / step + 1e-9) + 1)]


def time_text(seconds: float, longest: float) -> str:
    """``0.35 s``, ``2:05`` (minutes) or ``1:02:05`` (hours), as fits a run that takes ``longest`` seconds."""
    if longest < 120:
        return f"{seconds:.3g} s" if longest >= 0.1 else f"{seconds * 1000:.3g} ms"
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}" if longest >= 3600 else f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if longest >= 3600 else f"{minutes} min"
