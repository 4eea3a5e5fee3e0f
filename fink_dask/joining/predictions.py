"""The predictions of some alerts, as a dataset of predictions has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from fink_dask.avro.predictions import COMMON

_Ints = npt.NDArray[np.int64]


class Predictions:
    """The predictions of some alerts: of each model the last one, by partition and offset."""

    def __init__(self, dataset: ds.Dataset, candids: _Ints, kind: pa.ListType) -> None:
        names = [COMMON, "model", "prediction", "kafka_partition", "kafka_offset"]
        wanted = ds.field(COMMON).isin(pa.array(np.unique(candids)))
        table = dataset.to_table(columns=names, filter=wanted).combine_chunks()
        models = table["model"].combine_chunks().dictionary_encode()
        ranks = np.argsort(np.argsort(np.array(models.dictionary.to_pylist(), object)))[models.indices.to_numpy()]
        of = table[COMMON].to_numpy()
        order = np.lexsort([table["kafka_offset"].to_numpy(), table["kafka_partition"].to_numpy(), ranks, of])
        of, ranks = of[order], ranks[order]
        is_last = np.ones(len(of), np.bool_)
        is_last[:-1] = (of[1:] != of[:-1]) | (ranks[1:] != ranks[:-1])
        found = table.take(pa.array(order[is_last]))
        # The type of the column that they make.
        self._kind = kind
        columns = [found[name].combine_chunks() for name in ("model", "prediction")]
        self._values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
        self._of = of[is_last]
        self._candids, self._starts, self._counts = np.unique(self._of, return_index=True, return_counts=True)

    def column(self, candids: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], pa.ListArray]:
        """Return which alerts have predictions, and the column of these."""
        has = np.isin(candids.fill_null(0).to_numpy(), self._candids) & candids.is_valid().to_numpy()
        places = np.searchsorted(self._candids, candids.filter(pa.array(has)).to_numpy())
        starts, counts = self._starts[places], self._counts[places]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        taken = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return has, pa.ListArray.from_arrays(pa.array(offsets), self._values.take(pa.array(taken)), type=self._kind)

    def digest(self, candids: Iterable[_Ints], *more: str) -> str:
        """Hash the predictions of some of the alerts, to 16 hex digits."""
        mine = pa.array(np.isin(self._of, np.concatenate([np.empty(0, np.int64), *candids])))
        values = self._values.filter(mine)
        digest = hashlib.sha256("\0".join(more).encode())
        digest.update(self._of[mine.to_numpy(zero_copy_only=False)].tobytes())
        digest.update(values.field(1).to_numpy().tobytes())
        for model in values.field(0).to_pylist():
            digest.update(model.encode() + b"\0")
        return digest.hexdigest()[:16]
