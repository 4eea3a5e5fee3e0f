"""The cluster on this machine: where its dashboard may be."""

from __future__ import annotations

import socket

import pytest

from fink_dask.cluster.local import free_address
from fink_dask.errors import SettingsError


def test_a_dashboard_elsewhere_is_refused_in_one_line_and_a_taken_port_is_another_one() -> None:
    with pytest.raises(SettingsError, match=r"--dashboard-address 192\.0\.2\.1:8787: ") as caught:
        free_address("192.0.2.1:8787")
    assert "\n" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_address(f"127.0.0.1:{taken.getsockname()[1]}") == "127.0.0.1:0"
