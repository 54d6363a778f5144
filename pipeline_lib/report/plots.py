"""Plots as SVG text, the same bytes for the same numbers."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

Row = Mapping[str, Any]
_STYLE: Any = {"svg.hashsalt": "lode", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
          "axes.spines.right": False, "font.family": "sans-serif"}  # fmt: skip
COLOURS = ("#2563a8", "#c2571a", "#3a7d44", "#7a4fa3", "#8a6d1f")
"""Told apart also with the common kinds of colour blindness, and on a black and white print by their order."""


def over_time(series: Mapping[str, Sequence[Row]]) -> str:
    """The difference to control, as a share of control, by day: always-valid intervals as bands, fixed-horizon ones as
    bars at each day's look. Empty where no difference could be computed.

    Args:
        series: result rows of one metric to date, in the order of their days, by variation's name; a
            variation without any, as control, keeps its colour free.
    """
    if not any(map(_told, series.values())):
        return ""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="#666", linewidth=0.8)
        for n, ((name, rows), colour) in enumerate(zip(series.items(), COLOURS * len(series), strict=False)):
            told = _told(rows)
            if not told:
                continue
            days = [day + 0.06 * n for day in _places(told)]  # bars of a day stand beside each other

            def share(column: str, told: Sequence[Row] = told) -> list[float]:
                return [row[column] / row["control"] for row in told]

            axes.fill_between(
                days, share("always_valid_low"), share("always_valid_high"), color=colour, alpha=0.15, lw=0
            )
            axes.vlines(days, share("difference_low"), share("difference_high"), color=colour, alpha=0.5)
            axes.plot(days, share("difference"), color=colour, marker="o", markersize=3, label=name)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _by_day(axes)
        axes.set_ylabel("difference, share of control")
        figure.legend(frameon=False, loc="outside upper right", ncols=4)
        return _svg(figure)


def visitors(series: Mapping[str, Sequence[Row]]) -> str:
    """Visitors to date of each variation, by day."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 1.8), layout="constrained")
        axes = figure.subplots()
        for (name, rows), colour in zip(series.items(), COLOURS * len(series), strict=False):
            axes.plot(
                _places(rows), [row["visitors"] for row in rows], color=colour, marker="o", markersize=3, label=name
            )
        _by_day(axes)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("visitors")
        figure.legend(frameon=False, loc="outside upper right", ncols=4)
        return _svg(figure)


def funnel(series: Mapping[str, Sequence[Row]], steps: Sequence[str]) -> str:
    """The share of the exposed visitors who came to each step, bars of the variations beside each other. Empty where
    nobody was exposed.

    Args:
        series: funnel rows of one day, in the order of the steps, by variation's name.
    """
    if not any(row["visitors"] for rows in series.values() for row in rows):
        return ""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.4), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(series)
        for n, ((name, rows), colour) in enumerate(zip(series.items(), COLOURS * len(series), strict=False)):
            places = [row["step"] - 1 + (n - (len(series) - 1) / 2) * width for row in rows]
            shares = [row["count"] / row["visitors"] if row["visitors"] else 0.0 for row in rows]
            axes.bar_label(axes.bar(places, shares, width, color=colour, label=name), fmt="{:.1%}", fontsize=7)
        axes.set_xticks(range(len(steps)), steps)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("share of visitors")
        figure.legend(frameon=False, loc="outside upper right", ncols=4)
        return _svg(figure)


def retention(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """The share of a variation's visitors who are back so many days after the exposure. Empty with less than two days.

    Args:
        curves: days since the exposure and share, by variation's name.
    """
    if not any(len(points) > 1 for points in curves.values()):
        return ""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.2), layout="constrained")
        axes = figure.subplots()
        for (name, points), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
            axes.plot(
                [n for n, _ in points], [y for _, y in points], color=colour, marker="o", markersize=3, label=name
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("days since the exposure")
        axes.set_ylabel("share who are back")
        figure.legend(frameon=False, loc="outside upper right", ncols=4)
        return _svg(figure)


def traffic(hours: Sequence[Row]) -> str:
    """Events and visitors by the hour, and below the shares that are unsound. Empty without hours.

    Args:
        hours: rows of traffic.by_hour of one topic, in their order.
    """
    if not hours:
        return ""
    times = [float(date2num(row["time"])) for row in hours]  # type: ignore[no-untyped-call]
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        counts, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for axes, names in ((counts, ("events", "visitors")), (shares, _UNSOUND)):
            for name, colour in zip(names, COLOURS, strict=False):
                label = name.removesuffix("_share")
                axes.plot(times, [row[name] for row in hours], color=colour, linewidth=1.2, label=label)
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, borderaxespad=0)
        counts.set_ylabel("an hour")
        counts.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        shares.set_ylabel("of all events")
        shares.yaxis.set_major_formatter(PercentFormatter(1.0))
        _by_day(shares)
        return _svg(figure)


_UNSOUND = ("error_share", "quarantined_share", "bot_share", "duplicate_share")


def _told(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["difference"] is not None and row["control"]]


def _places(rows: Sequence[Row]) -> list[float]:
    return [float(date2num(row["date"])) for row in rows]  # type: ignore[no-untyped-call]


def _by_day(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _svg(figure: Figure) -> str:
    found = io.StringIO()
    figure.savefig(found, format="svg", metadata={"Date": None, "Creator": None})
    text = found.getvalue()
    return text[text.index("<svg") :]
