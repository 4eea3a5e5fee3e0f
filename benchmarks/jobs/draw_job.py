"""Draw the figures that are described on standard input; a script that needs matplotlib and nothing of this project."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

COLOURS = ("#1b6ca8", "#e0622b")
WORDS = {"frozen": "frozen", "limit": "too long", "wrong": "alerts wrong"}


def draw(figure: dict[str, Any], folder: Path) -> None:
    """Draw curves; a run that froze or failed is a hollow mark at the time at which it was stopped."""
    fig, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for curve, colour in zip(figure["curves"], COLOURS, strict=True):
        good = [point for point in curve["points"] if point["ended"] == "in time"]
        bad = [point for point in curve["points"] if point["ended"] != "in time"]
        xs, ys = [point["x"] for point in good], [point["seconds"] for point in good]
        axes.plot(xs, ys, "o-", color=colour, label=curve["name"])
        for point in bad:
            axes.plot(point["x"], point["seconds"], "o", color=colour, fillstyle="none", markersize=9)
            word = WORDS.get(point["ended"], "failed")
            axes.annotate(word, (point["x"], point["seconds"]), (0, 9), textcoords="offset points", ha="center", size=8)
    if figure["cores"]:
        axes.axvline(figure["cores"], color="0.8", linewidth=0.8, zorder=0)
        axes.text(
            figure["cores"],
            1.0,
            " cores of the machine",
            size=8,
            color="0.5",
            va="top",
            transform=axes.get_xaxis_transform(),
        )
    ticks = sorted({point["x"] for curve in figure["curves"] for point in curve["points"]})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(figure["axis"])
    axes.set_ylabel("seconds, from start to exit")
    top = max((point["seconds"] for curve in figure["curves"] for point in curve["points"]), default=1.0)
    axes.set_ylim(0, 1.2 * top)
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    fig.savefig(folder / figure["file"], metadata={"Date": None})
    plt.close(fig)


def main() -> None:
    """Draw each figure into the folder that is named."""
    mpl.rcParams["svg.hashsalt"] = "fink-dask"  # the same figures give the same file
    for figure in json.load(sys.stdin):
        draw(figure, Path(sys.argv[1]))


main()
