"""Settings are read once, refused by name and all at once, and every one of them can be listed."""

import os
import stat
from pathlib import Path

import pytest

from bidder_api.settings import (
    AllSettings,
    Settings,
    SettingsRefused,
    beacon_keys,
    field_sentences,
    list_settings,
    master_secret,
    read_settings,
)


def test_without_any_variable_everything_has_its_default() -> None:
    assert read_settings({}) == AllSettings()


def test_values_reach_the_struct_of_the_package_they_belong_to() -> None:
    read = read_settings(
        {
            "ENDCAP_PORT": "9000",
            "ENDCAP_HOLDOUT_PPM": "50000",
            "ENDCAP_SESSION_GAP_S": "60",
            "ENDCAP_INVALID_TRAFFIC": "off",
            "ENDCAP_CURRENCY": "CHF",
            "PATH": "/bin",
        }
    )
    assert read.server.port == 9000
    assert read.auction.holdout_ppm == 50000
    assert read.affinity.session_gap_s == 60
    assert (read.ledger.invalid_traffic, read.ledger.currency, read.server.currency) == ("off", "CHF", "CHF")


def test_every_bad_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsRefused) as refusal:
        read_settings(
            {
                "ENDCAP_PROT": "1",
                "ENDCAP_PORT": "many",
                "ENDCAP_TIME_ZONE": "Mars/Olympus",
                "ENDCAP_CURRENCY": "euro",
                "ENDCAP_SECRET_KEY": "hunter2",
                "ENDCAP_DATA_CENTRE_RANGES": "192.0.2.0/24, home",
            }
        )
    said = "\n".join(refusal.value.complaints)
    assert len(refusal.value.complaints) == 6
    assert "ENDCAP_DATA_CENTRE_RANGES must be ranges" in said
    assert "ENDCAP_PROT is not a setting (did you mean ENDCAP_PORT?)" in said
    assert "ENDCAP_PORT: " in said
    assert "hunter2" not in said


def test_the_command_line_stands_above_the_environment() -> None:
    assert read_settings({"ENDCAP_PORT": "9000"}, port=9001, host=None).server.port == 9001


def test_every_setting_is_listed_once_with_a_sentence() -> None:
    lines = list_settings(AllSettings())
    assert len({line.variable for line in lines}) == len(lines)
    assert [line.variable for line in lines if not line.sentence] == []
    assert {"ENDCAP_DATABASE_URL", "ENDCAP_BEACON_KEYS", "ENDCAP_VISITOR_STORE"} <= {line.variable for line in lines}


def test_a_sentence_may_run_over_several_lines() -> None:
    assert "embedded" not in field_sentences(Settings)["database_url"]
    assert field_sentences(Settings)["database_url"].endswith("`sqlite:///$ENDCAP_DATA_DIR/endcap.db`.")


def test_secrets_are_not_listed() -> None:
    secret = "ab" * 32
    shown = [line for line in list_settings(read_settings({"ENDCAP_SECRET_KEY": secret})) if secret in line.value]
    assert shown == []


def test_a_missing_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    made = master_secret(settings)
    assert made == master_secret(settings)
    assert len(made) == 32
    beacon_keys(settings)
    modes = {stat.S_IMODE(os.stat(path).st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes == {0o600}
    assert not list((tmp_path / "data").glob(".*"))


def test_on_postgresql_a_missing_secret_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://localhost/x")
    with pytest.raises(SettingsRefused, match="ENDCAP_SECRET_KEY must be set"):
        master_secret(settings)
    with pytest.raises(SettingsRefused, match="ENDCAP_BEACON_KEYS must be set"):
        beacon_keys(settings)
    assert list(tmp_path.iterdir()) == []
