"""Find the alerts of an object in a dataset, and make its light curve."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.avro.schema import field_type
from fink_dask.dataset.encoding import for_pandas
from fink_dask.dataset.formats import reading
from fink_dask.dataset.read import absent_from, open_each
from fink_dask.dataset.surveys import Fields, SurveyNames, expression
from fink_dask.errors import SettingsError
from fink_dask.lightcurves.points import MEASURED, points_of

_NEEDED = ("object", "source", "time", "value")
#: What LSST calls the object of all that moves in the solar system.
_NO_OBJECT = 0
_ID_CHARS = 100


def light_curve(outdir: str | os.PathLike[str], object_id: str | int) -> pa.Table:
    """Return all that the alerts of an object tell of its brightness, each measurement once, in order of time.

    Full packets carry earlier detections, upper limits of ZTF, and forced photometry of LSST: they come with every
    alert of the object, and are here once, as the newest alert has them.

    Parameters
    ----------
    outdir : str or os.PathLike
        The dataset's directory, or ``s3://BUCKET/NAME``.
    object_id : str or int
        ``objectId`` of ZTF, such as ``ZTF18abcdefg``; ``diaObjectId`` of LSST, or the designation of something in the
        solar system, such as ``2015 RT72``.

    Returns
    -------
    pyarrow.Table
        A row a measurement; ``.to_pandas()`` makes a data frame of it. Its columns are the same for all packets:

        ``mjd``
            Time in days, in the survey's scale: of LSST the middle of the exposure in TAI, of ZTF its start in UTC.
        ``scale``
            ``utc`` or ``tai``.
        ``band``
            The filter.
        ``value``, ``error``
            Brightness and its standard error in `unit`; null for a limit.
        ``limit``
            The faintest that would have been seen then, where the survey says so.
        ``positive``
            Whether there is more light than in the template (``isdiffpos`` of ZTF, whose magnitudes are those of the
            difference, whatever its sign); null where the value has a sign, as LSST's fluxes have.
        ``unit``
            ``mag`` or ``nJy``.
        ``quantity``
            What the survey calls the value: ``magpsf``, ``psfFlux``, which is that of the difference image, or
            ``scienceFlux`` of light LSST packets, which is that of the image itself.
        ``kind``
            ``alert``, the detection that an alert was sent for; ``earlier``, an earlier detection; ``limit``, where
            nothing was detected; ``forced``, measured where nothing needed to be detected.
        ``source``
            The survey's identifier of the measurement; null for limits.
        ``alert``
            Identifier of the alert that the row was found in.

    Raises
    ------
    SettingsError
        If the dataset has no such object, or lacks the columns of a light curve.
    LedgerError
        If there is no ledger, it is damaged, or a file can't be read.
    StorageError
        If the file system, or the object store, refuses.
    """
    opened = open_each(outdir)
    fit = [(dataset, fields) for dataset, fields in opened if fields.has(*_NEEDED)]
    if not fit:
        survey = opened[0][1].survey
        needed = [survey.names[role] for role in _NEEDED]
        missing = next(survey.names[role] for role in _NEEDED if not opened[0][1].has(role))
        raise SettingsError(f"{outdir} has no {missing}: a light curve needs {', '.join(needed)}")
    curve = points_of(find_alerts(outdir, fit, object_id, _measurements))
    # For to_pandas(), which would make floating-point numbers of identifiers where a limit has none.
    return curve.replace_schema_metadata(for_pandas(curve.schema))


def _is_object(schema: pa.Schema, fields: Fields, object_id: str | int) -> pc.Expression:
    """Return the condition that is true of the alerts of an object.

    Raises SettingsError if it can't be the name of one.
    """
    path, name = fields.paths["object"], str(object_id).strip()
    kind = field_type(schema, path)
    if pa.types.is_string(kind):
        return expression(path) == name
    if name.isascii() and name.isdecimal():
        if int(name) == _NO_OBJECT:
            raise SettingsError(f"0 is no object: it stands for none, as of what moves; give its {fields.survey.mover}")
        try:
            return expression(path) == pa.scalar(int(name), kind)
        except (pa.ArrowInvalid, OverflowError):
            pass
    elif fields.has("mover"):
        return pc.utf8_trim_whitespace(expression(fields.paths["mover"])) == name
    raise SettingsError(f"{name[:_ID_CHARS]!r} is no {path}: that is a number")


def find_alerts(
    outdir: str | os.PathLike[str],
    opened: Sequence[tuple[ds.Dataset, Fields]],
    object_id: str | int,
    columns: Callable[[pa.Schema, Fields], Mapping[str, pc.Expression]],
) -> list[tuple[pa.Table, Fields]]:
    """Read the alerts of an object: what is large only from the files that have some of them.

    `opened`: at least one dataset, and what its columns are; it has ``object``.
    `columns`: says what to read of a dataset, and how to call it.
    Raises SettingsError if there is no such object.
    """
    found, refused = [], []
    with reading(outdir):
        for dataset, fields in opened:
            try:
                is_object = _is_object(dataset.schema, fields, object_id)
            except SettingsError as error:  # the names of another survey may be of another kind
                refused.append(error)
                continue
            files = dataset.scanner(columns=["__filename"], filter=is_object).to_table()["__filename"]
            paths = set(files.unique().to_pylist())
            wanted = dict(columns(dataset.schema, fields))
            found += [
                (fragment.to_table(schema=dataset.schema, columns=wanted, filter=is_object), fields)
                for fragment in dataset.get_fragments()
                if fragment.path in paths
            ]
    if found:
        return found
    if len(refused) == len(opened):
        raise refused[0]
    moving = [f"its {fields.paths['mover']} as it is written there" for _, fields in opened if fields.has("mover")]
    name = " or ".join(dict.fromkeys([*(f"its {fields.survey.names['object']}" for _, fields in opened), *moving]))
    raise SettingsError(
        f"{outdir} has no alert of the object {str(object_id)[:_ID_CHARS]!r}: it is named by {name}; "
        f"fink-dask lightcurve {outdir} lists those with the most alerts{absent_from(outdir)}"
    )


def _measurements(schema: pa.Schema, fields: Fields) -> dict[str, pc.Expression]:
    """Name what a light curve is made of."""
    columns = {role: expression(fields.paths[role]) for role in (*_NEEDED, *MEASURED) if fields.has(role)}
    survey = fields.survey
    limit = fields.paths["time"].removesuffix(survey.names["time"]) + survey.limit
    if survey.limit and field_type(schema, limit) is not None:
        columns["limit"] = expression(limit)
    return columns | {name: expression(path) for name, path in told_of(survey, schema).items()}


def told_of(survey: SurveyNames, schema: pa.Schema) -> dict[str, str]:
    """Find the lists of what alerts tell of other times than their own, by `history` and `forced`."""
    kinds = {"history": survey.history, "forced": survey.forced}
    found = {name: (path, field_type(schema, path)) for name, path in kinds.items() if path}
    return {
        name: path
        for name, (path, kind) in found.items()
        if kind is not None and pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)
    }


@dataclass(frozen=True)
class Stamp:
    """A cutout, as the survey has sent it."""

    #: The identifier of its alert.
    alert: int
    #: What it shows: ``science``, ``template`` or ``difference``.
    shown: str
    #: A FITS file, or whatever came in its place.
    data: bytes | None


def cutouts_of(outdir: str | os.PathLike[str], object_id: str | int) -> Iterator[Stamp]:
    """Yield the cutouts of all alerts of an object, those of each alert once.

    Raises SettingsError if the alerts have no cutouts, or there is no such object.
    Raises LedgerError if the dataset is not what its ledger says, or a file can't be read.
    """
    opened = open_each(outdir)
    fit = [(dataset, fields) for dataset, fields in opened if fields.cutouts and fields.has("object", "source")]
    if not fit:
        raise SettingsError(f"{outdir} has no cutouts of objects; alerts of full packets have some")
    seen = set()
    for alerts, fields in find_alerts(outdir, fit, object_id, _columns):
        for row in alerts.to_pylist():
            if row["alert"] in seen:  # several topics may hold the same alert
                continue
            seen.add(row["alert"])
            yield from (Stamp(row["alert"], shown, row[shown]) for shown in fields.cutouts)


def _columns(_: pa.Schema, fields: Fields) -> dict[str, pc.Expression]:
    paths = {"alert": fields.paths["source"], **fields.cutouts}
    return {role: expression(path) for role, path in paths.items()}
