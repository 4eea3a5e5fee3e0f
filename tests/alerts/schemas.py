"""Avro writer schemas in the form of Spark's ``to_avro``, from compact lists of fields.

A list of fields is a string whose lines each hold a type and the names of the fields with that type::

    double jd ra dec
    int fid
    nested prv_candidates

Every field becomes the union ``[type, "null"]``, the value first; a record inside a record is not nullable itself,
as the headers of Fink's packets show. The types of the ``nested`` names are passed along with the string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

#: An Avro schema as ``json.loads`` would give it.
AvroSchema: TypeAlias = dict[str, Any]
AvroType: TypeAlias = str | list[Any] | dict[str, Any]

PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "string", "bytes"})

#: What Fink's light-curve package computes in each band.
LC_FEATURES = """
    double mean weighted_mean standard_deviation median amplitude beyond_1_std cusum inter_percentile_range_10
    double kurtosis linear_trend linear_trend_sigma linear_trend_noise linear_fit_slope linear_fit_slope_sigma
    double linear_fit_reduced_chi2 magnitude_percentage_ratio_40_5 magnitude_percentage_ratio_20_10
    double maximum_slope median_absolute_deviation median_buffer_range_percentage_10 percent_amplitude
    double mean_variance anderson_darling_normal chi2 skew stetson_K
"""


def nullable(avro_type: AvroType) -> list[AvroType]:
    """Return the union of a type and null as Spark writes it."""
    return [avro_type, "null"]


def record(name: str, fields: str, **nested: AvroType) -> AvroSchema:
    """Build a record from a list of fields.

    `name`: name of the record, without its namespace.
    `fields`: lines of a type and the names that have it; see the module.
    `**nested`: types of the fields of the ``nested`` lines, written into the record as they are.
    Raises KeyError if a nested field has no type.
    Raises ValueError if a line doesn't start with a type, or a nested type has no field.
    """
    built: list[dict[str, AvroType]] = []
    for line in filter(str.strip, fields.splitlines()):
        kind, *names = line.split()
        if kind != "nested" and kind not in PRIMITIVES:
            raise ValueError(f"{kind!r} is not an Avro type, in the record {name}")
        built += [{"name": field, "type": nested[field] if kind == "nested" else nullable(kind)} for field in names]
    unused = nested.keys() - {str(field["name"]) for field in built}
    if unused:
        raise ValueError(f"no field for the nested types {sorted(unused)}, in the record {name}")
    return {"type": "record", "name": name, "fields": built}


def alert_record(fields: str, **nested: AvroType) -> AvroSchema:
    """Build the record of a whole alert; the records in it inherit its namespace, as Spark names them.

    `fields`: lines of a type and the names that have it; see the module.
    `**nested`: types of the fields of the ``nested`` lines.
    """
    schema = record("value", fields, **nested)
    return {"type": "record", "name": "value", "namespace": "topLevelRecord", "fields": schema["fields"]}


def flattened(full: AvroSchema, detection: str, columns: Sequence[str], kept: Callable[[str], bool]) -> AvroSchema:
    """Build the record of a light alert from that of a full one, as the portal's job selects columns.

    `detection`: the name of its detection, whose columns come first.
    """
    inner = {field["name"]: field for field in innermost_type(full, detection)["fields"]}
    others = [field for field in full["fields"] if kept(field["name"])]
    return {**full, "fields": [*(inner[name] for name in columns), *others]}


def nullable_array(items: AvroSchema) -> list[AvroType]:
    """Return a nullable array of nullable items.

    Returns: the union of the array and null.
    """
    return nullable({"type": "array", "items": nullable(items)})


def nullable_map(values: AvroType) -> list[AvroType]:
    """Return a nullable map from strings to nullable values.

    Returns: the union of the map and null.
    """
    return nullable({"type": "map", "values": nullable(values)})


def innermost_type(schema: AvroSchema, name: str) -> Any:
    """Return the record or the primitive inside a field of a record, below unions, arrays and maps.

    Raises KeyError if the record has no such field.
    """
    types = {field["name"]: field["type"] for field in schema["fields"]}
    inner: Any = types[name]
    while True:
        if isinstance(inner, list):
            inner = inner[0]
        elif isinstance(inner, dict) and inner["type"] in {"array", "map"}:
            inner = inner.get("items") or inner["values"]
        else:
            return inner
