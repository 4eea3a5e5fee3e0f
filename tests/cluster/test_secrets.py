"""A password goes to Kafka and nowhere else: it is in no process list, log, ledger, task, dashboard or error."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trustme
from distributed.security import Security

from fink_dask.cluster.existing import Scheduler
from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind
from tests.harness.cli import FEW_AT_ONCE, PROGRAM, environment, run_cli, unhurried
from tests.harness.dask import answers
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, wait_for
from tests.harness.secure import PASSWORD, USER, SecureKafka
from tests.harness.tokens import CLIENT, SECRET, identity_server

TOPIC = "ftransfer_ztf_2026-11-01_2"
COUNT = 4000


@pytest.fixture(scope="module")
def oracle(secure: SecureKafka) -> Oracle:
    return fill_topic(secure.broker.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, COUNT, partitions=4)


def arguments(secure: SecureKafka, outdir: Path, *more: str) -> list[str]:
    servers = secure.broker.address("SASLTLS")
    options = ["--bootstrap-servers", servers, "--security-protocol", "SASL_SSL", "--ssl-ca-file", str(secure.ca_file)]
    return ["transfer", "-topic", TOPIC, "-outdir", str(outdir), *options, *more]


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


def test_the_password_is_seen_nowhere_while_a_transfer_runs_and_after_it(
    secure: SecureKafka, oracle: Oracle, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    outdir, hurry = tmp_path / "alerts", tmp_path / "hurry"
    more = ("--username", USER, "--dashboard-address", f"127.0.0.1:{port}", *FEW_AT_ONCE, "-v")
    process = subprocess.Popen(
        [*PROGRAM, *arguments(secure, outdir, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(unhurried(hurry) | {"FINK_DASK_PASSWORD": PASSWORD}),
    )
    seen: list[str] = []
    parent = psutil.Process(process.pid)
    ledger = Ledger(outdir)
    wait_for(lambda: process.poll() is not None or (ledger.exists() and bool(ledger.staged())), "a range")
    for each in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.Error):
            seen += each.cmdline()
            if each != parent:  # the parent was given it there
                seen += [f"{name}={value}" for name, value in each.environ().items()]
    pages = (
        "status",
        "workers",
        "tasks",
        "info/main/workers.html",
        "info/logs.html",
        "json/counts.json",
        "sitemap.json",
    )
    answered = 0
    for page in pages:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
            seen.append(answer.read().decode(errors="replace"))
            answered += 1
    hurry.touch()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert answered >= 3, "the dashboard was not asked"
    seen += [out, err]
    leaks = [text[:100] for text in seen if PASSWORD in text]
    assert leaks == []
    assert_exactly_once(outdir, oracle.values)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.commands
def test_a_transfer_with_a_token_shows_it_and_its_secret_to_nobody(
    secure: SecureKafka, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    with identity_server() as identity:
        servers = ["--bootstrap-servers", secure.broker.address("TOKENS"), "--security-protocol", "SASL_PLAINTEXT"]
        who = ["--sasl-mechanism", "oauthbearer", "--username", CLIENT, "--oauth-token-url", identity.url]
        options = ["-topic", TOPIC, "-outdir", str(outdir), *servers, *who, "-v"]
        result = run_cli("transfer", *options, env={"FINK_DASK_PASSWORD": SECRET, "TMPDIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, oracle.values)
    assert identity.given, "nobody asked for a token"
    seen = [result.stdout.encode(), result.stderr.encode()]
    seen += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    # The signature of a token that nobody has signed is empty.
    secrets = [SECRET, *(token.split(".")[1] for token in identity.given)]
    assert not any(secret.encode() in text for secret in secrets for text in seen)


def test_a_wrong_password_is_one_line_that_does_not_quote_it(
    secure: SecureKafka, oracle: Oracle, tmp_path: Path
) -> None:
    result = run_cli(
        *arguments(secure, tmp_path / "alerts", "--username", USER), env={"FINK_DASK_PASSWORD": f"{PASSWORD}-not"}
    )
    assert result.returncode == 1
    assert "credentials" in result.stderr.splitlines()[-1]
    assert result.stderr.count("fink-dask: error") == 1
    assert PASSWORD not in result.stderr
    assert not (tmp_path / "alerts").exists()


def test_there_is_no_option_for_a_password(secure: SecureKafka, tmp_path: Path) -> None:
    result = run_cli(*arguments(secure, tmp_path / "alerts", "--password", PASSWORD))
    assert result.returncode == 2
    assert "--password-file" in result.stderr


def test_the_password_comes_from_a_file_of_its_own(
    secure: SecureKafka, oracle: Oracle, tmp_path: Path, password_file: Path
) -> None:
    more = ("--username", USER, "--password-file", str(password_file), "--dry-run")
    result = run_cli(*arguments(secure, tmp_path / "alerts", *more))
    assert result.returncode == 0, result.stderr
    assert f"{COUNT:,}" in result.stdout
    assert "warning" not in result.stderr
    password_file.chmod(0o644)
    result = run_cli(*arguments(secure, tmp_path / "alerts", *more))
    assert result.returncode == 0, result.stderr
    assert f"{password_file}: run chmod 600" in result.stderr


def test_name_and_password_come_from_the_credentials_file(secure: SecureKafka, oracle: Oracle, tmp_path: Path) -> None:
    folder = tmp_path / ".finkclient"
    folder.mkdir()
    (folder / "ztf_credentials.yml").write_text(f"username: {USER}\npassword: {PASSWORD}\nservers: unused:1\n")
    result = run_cli(*arguments(secure, tmp_path / "alerts", "--dry-run"), env={"HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert "chmod 600" in result.stderr
    assert PASSWORD not in result.stdout + result.stderr


@pytest.mark.commands
def test_workers_of_another_scheduler_get_it_through_tls_and_not_from_the_disk(
    secure: SecureKafka, oracle: Oracle, tmp_path: Path, password_file: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    certificate.private_key_pem.write_to_path(str(files["key"]))
    files["cert"].write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    tls = ["--tls-ca-file", str(files["ca"]), "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"])]
    (port,) = free_ports(1)
    address = f"tls://127.0.0.1:{port}"
    folder = tmp_path / "dask"
    folder.mkdir()
    dask = [sys.executable, "-m"]
    commands = [
        [*dask, "distributed.cli.dask_scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", str(port)],
        [*dask, "distributed.cli.dask_worker", address, "--no-nanny", "--local-directory", str(folder)],
    ]
    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen([*command, *tls, "--no-dashboard"], stderr=log, env=environment()) for command in commands
        ]
    try:
        security = Security(
            tls_ca_file=str(files["ca"]),
            tls_client_cert=str(files["cert"]),
            tls_client_key=str(files["key"]),
            require_encryption=True,
        )
        wait_for(lambda: answers(address, security=security), "the scheduler")
        more = ("--username", USER, "--password-file", str(password_file), "--scheduler", address, *tls)
        result = run_cli(*arguments(secure, tmp_path / "alerts", *more))
        assert result.returncode == 0, result.stderr
        assert "unencrypted" not in result.stderr
        assert_exactly_once(tmp_path / "alerts", oracle.values)
        refused = run_cli(*arguments(secure, tmp_path / "other", *more[:-6]))
        assert refused.returncode == 1
        assert address in refused.stderr
    finally:
        for process in running:
            process.kill()
            process.wait()
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != password_file:
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_an_unencrypted_way_to_the_workers_is_said() -> None:
    assert Scheduler("tcp://10.1.2.3:8786").is_open
    assert Scheduler("node7:8786").is_open
    here = ("tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786")
    for address in (*here, "tls://10.1.2.3:8786", "gateway://10.1.2.3:8786/cluster"):
        assert not Scheduler(address).is_open, address
