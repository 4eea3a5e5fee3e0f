"""The UTC day of an alert, from the time that its survey gives."""

from __future__ import annotations

import warnings
from typing import Literal

import erfa
import numpy as np
import numpy.typing as npt

#: UTC as a Julian date (ZTF), or TAI as a modified Julian date (LSST).
Scale = Literal["utc-jd", "tai-mjd"]
Integers = npt.NDArray[np.int64]

#: Days since 1970 of 0001-01-01 and 9999-12-31: the years that four digits can say.
FIRST_DAY, LAST_DAY = -719162, 2932896
#: Stands for a time that is not a date.
NO_DAY = np.iinfo(np.int64).min

_JD_OF_1970 = 2440587.5
_MJD_OF_1970 = 40587
#: Day of 1958-01-01, when TAI began: anything earlier (such as 0 and -1) stands for no time at all.
_FIRST_TAI_DAY = -4383


def days_since_1970(times: npt.NDArray[np.float64], scale: Scale) -> Integers:
    """Find the UTC day of each time, rounding down.

    Parameters
    ----------
    times : numpy.ndarray
        Julian dates in UTC, or modified Julian dates in TAI, in days.
    scale : {"utc-jd", "tai-mjd"}
        Which of them.

    Returns
    -------
    numpy.ndarray
        Days since 1970-01-01, or `NO_DAY` where a time is not a date between the years 1 (TAI: 1958) and 9999.

    Notes
    -----
    TAI becomes UTC by ERFA's ``taiutc``, whose table holds the leap seconds
    (https://www.iausofa.org/current_C.html, SOFA Time Scales and Calendar Tools).
    """
    days = np.full(times.shape, NO_DAY, dtype=np.int64)
    epoch = _JD_OF_1970 if scale == "utc-jd" else _MJD_OF_1970
    first = FIRST_DAY if scale == "utc-jd" else _FIRST_TAI_DAY
    with np.errstate(invalid="ignore"):
        valid = (times - epoch >= first) & (times - epoch < LAST_DAY + 1)
    chosen = times[valid]
    if scale == "tai-mjd" and chosen.size:
        with warnings.catch_warnings():
            # "Dubious year" is said of dates before UTC began and years ahead of the table; the day is still the best.
            warnings.simplefilter("ignore", erfa.ErfaWarning)
            whole, fraction = erfa.taiutc(2400000.5, chosen)
        chosen = (whole - 2400000.5) + fraction
    # The difference of two close numbers is exact, so that 0.1 ms before midnight is not rounded into the next day.
    days[valid] = np.floor(chosen - epoch)
    return days
