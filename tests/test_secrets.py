"""Keys, tokens and passwords stay out of what is written."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.config import schema
from regraft.config.ranges import ConfigError
from regraft.records import Launch, Manifest, Record
from regraft.secrets import HIDDEN, Formatter, holding, redact, redacted

PLANTED = "planted-secret-0123456789"


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of this machine: only what a test plants."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "MY_SECRET", "GITHUB_TOKEN", "PASSWORD", "db_password", "API_KEY"],
)
def test_the_value_of_a_variable_that_is_named_like_a_secret_is_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert redact(f"401 for {PLANTED}") == f"401 for {PLANTED}"
    monkeypatch.setenv(name, PLANTED)
    assert redact(f"401 for {PLANTED}, twice {PLANTED}") == f"401 for {HIDDEN}, twice {HIDDEN}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONKEY", "a-long-value-that-is-none"),
        ("TOKENIZERS_PARALLELISM", "false-false-false-false"),
        ("MY_TOKEN", "short"),
        ("SSH_KEY", "/home/somebody/.ssh/id_rsa"),
    ],
)
def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"said {value}") == f"said {value}"


def test_a_netrc_that_others_may_read_is_known_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {PLANTED}\n")
    (tmp_path / ".netrc").chmod(0o644)
    assert redact(f"key {PLANTED}") == f"key {HIDDEN}"


def test_the_longer_of_two_secrets_is_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", PLANTED)
    monkeypatch.setenv("B_KEY", f"{PLANTED}-and-more")
    assert redact(f"{PLANTED}-and-more {PLANTED}") == f"{HIDDEN} {HIDDEN}"


def test_the_hubs_token_file_and_netrc_are_known(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text(f"{PLANTED}-hub\n")
    (tmp_path / "netrc").write_text(
        f"machine api.wandb.ai login user password {PLANTED}-netrc\nmachine other login me\npassword {PLANTED}-other\n"
    )
    assert redact(f"{PLANTED}-hub {PLANTED}-netrc {PLANTED}-other") == f"{HIDDEN} {HIDDEN} {HIDDEN}"


def test_a_netrc_that_cannot_be_read_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    (tmp_path / "netrc").write_text("machinery without sense\n")
    assert redact(PLANTED) == HIDDEN
    (tmp_path / "netrc").write_bytes(b"\xff\xfe\x00machine")
    assert redact(PLANTED) == HIDDEN


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "aB3" * 12,
        "ghp_" + "aB3" * 12,
        "sk-proj-" + "aB3_" * 8,
        "Bearer " + "aB3-" * 8,
        "wandb_v1_" + "aB3" * 12,
        "local-" + "0123456789" * 4,
    ],
)
def test_tokens_are_known_by_their_shape(secret: str) -> None:
    for text in (secret, f"key={secret}.", f"({secret})", f'{{"key": "{secret}"}}'):
        assert secret not in redact(text) and HIDDEN in redact(text)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://user:pass@host/a@b?c=d", f"https://{HIDDEN}@host/a@b?c=d"),
        ("postgres://user:p%40ss@host:5432/db", f"postgres://{HIDDEN}@host:5432/db"),
        ("https://host/file?token=abc&x=1", f"https://host/file?{HIDDEN}&x=1"),
        ("https://host/file?x=1&api_key=abc", f"https://host/file?x=1&{HIDDEN}"),
        ("https://user:p@ss@host/x", f"https://{HIDDEN}@host/x"),
        ("https://s3/x?X-Amz-Date=1&X-Amz-Signature=ab12", f"https://s3/x?X-Amz-Date=1&{HIDDEN}"),
        ("https://host/models@main", "https://host/models@main"),
        ("git+ssh://git@host/repository", "git+ssh://git@host/repository"),
        ("/data/sk-questions-translated-to-slovak-2024.jsonl", "/data/sk-questions-translated-to-slovak-2024.jsonl"),
        ("mail someone@host or hf_hub_download", "mail someone@host or hf_hub_download"),
        ("hub:owner/model@revision", "hub:owner/model@revision"),
        ("sk-learn, a risk-averse local-first method", "sk-learn, a risk-averse local-first method"),
    ],
)
def test_a_password_in_an_address_is_hidden_and_addresses_stay(address: str, told: str) -> None:
    assert redact(f"see {address} .") == f"see {told} ."


def test_plain_data_is_redacted_through_and_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    plain = {"a": [PLANTED, {"b": (f"x{PLANTED}", 1, None, True, 0.5)}], PLANTED: "key"}
    assert redacted(plain) == {"a": [HIDDEN, {"b": [f"x{HIDDEN}", 1, None, True, 0.5]}], HIDDEN: "key"}
    assert list(holding(plain)) == ["a.0", "a.1.b.0"]
    assert list(holding({"a": {"b": "https://host/x"}, "c": [1, None]})) == []


def test_records_and_manifests_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    record = Record(
        run_id="a",
        sweep="b",
        status="failed",
        error=f"401 for {PLANTED}\n\nTraceback: {PLANTED}",
        config={"task": {"train": f"/data/{PLANTED}"}},
        choices={},
        environment={"command": f"regraft x={PLANTED}"},
        stages=[],
        rows=[],
    )
    record.save(tmp_path)
    launch = Launch(time="now", commit=None, overrides=[f"x={PLANTED}"], runs=1)
    Manifest(sweep="b", runs={"a": [f"x={PLANTED}"]}, launches=[launch]).save(tmp_path)
    for name in ("record.json", "manifest.json"):
        assert PLANTED not in (tmp_path / name).read_text() and HIDDEN in (tmp_path / name).read_text()
    assert Record.load(tmp_path) == replace(record, **json.loads(json.dumps(redacted(vars(record)))))


def test_a_log_line_and_its_traceback_hold_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    try:
        raise OSError(f"refused: {PLANTED}")
    except OSError as error:
        told = (type(error), error, error.__traceback__)
    line = logging.LogRecord("x", logging.ERROR, "x.py", 1, "with %s", (PLANTED,), told)
    text = Formatter("%(levelname)s %(message)s").format(line)
    assert PLANTED not in text
    assert text.startswith(f"ERROR with {HIDDEN}\nTraceback") and text.endswith(f"OSError: refused: {HIDDEN}")


def test_a_config_that_holds_one_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    with pytest.raises(ConfigError, match=r"model\.path: holds what looks like a key") as raised:
        schema.load({"model": {"path": f"/models/{PLANTED}"}})
    assert PLANTED not in str(raised.value) and "HF_TOKEN" in str(raised.value)
