"""The kinds of alerts that can be made up."""

from __future__ import annotations

from enum import StrEnum


class AlertKind(StrEnum):
    """A survey and how much of a packet is sent."""

    ZTF_LIGHT = "ztf-light"
    ZTF_FULL = "ztf-full"
    LSST_LIGHT = "lsst-light"
    LSST_FULL = "lsst-full"
