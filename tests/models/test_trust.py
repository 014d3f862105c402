"""The policies of trust: what each permits, and what it says of what it does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mmserve.errors import StartError
from mmserve.models.trust import UntrustedModel, policy

DIGEST = hashlib.sha256(b"an archive").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def listed(file: Path, text: str) -> Path:
    """A list of digests that is seen to have changed, however coarse the file system's clock is."""
    new = file.with_suffix(".new")
    new.write_text(text)
    return new.replace(file)


@pytest.mark.parametrize("said", ["", "none", "ALL", "sha256", "sha256:", "skops_only"])
def test_a_policy_that_there_is_not_stops_the_start(said: str) -> None:
    with pytest.raises(StartError, match="expected all, skops-only or sha256:FILE"):
        policy(said)


def test_without_a_policy_everything_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    policy("all").check(tmp_path, {"option.entryPoint": "model.py"}, None)


@pytest.mark.parametrize(
    "name",
    [
        "model.joblib",
        "Model.PKL",
        "model.py",
        "code/inference.py",
        "deep/er/helper.cpython-311-x86_64-linux-gnu.so",
        "requirements.txt",
        "MAR-INF/MANIFEST.json",
        "xgboost-model",
    ],
)
def test_no_file_that_may_run_code_is_permitted(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.skops").touch()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UntrustedModel, match="trust is skops-only, and") as refused:
        policy("skops-only").check(tmp_path, {}, None)
    assert name in str(refused.value) or name.startswith("MAR-INF")


def test_no_code_is_permitted_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / ".beside").mkdir()
    (tmp_path / ".beside" / "inference.py").touch()
    (tmp_path / "model" / "code").symlink_to("../.beside")
    with pytest.raises(UntrustedModel, match="code is refused: it is a link to a directory"):
        policy("skops-only").check(tmp_path / "model", {}, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("option.entryPoint", "os"),
        ("option.handler", "system"),
        ("option.env", "A=b"),
        ("option.skops_trusted_types", "posix.system"),
    ],
)
def test_no_option_is_permitted_that_may_run_code(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(UntrustedModel, match=f"trust is skops-only, and {key} is refused"):
        policy("skops-only").check(tmp_path, {key: value}, None)


def test_files_of_data_alone_are_permitted(tmp_path: Path) -> None:
    for name in (
        "model.skops",
        "model.onnx",
        "model.ubj",
        "model.json",
        "model.txt",
        "README.md",
        "serving.properties",
    ):
        (tmp_path / name).touch()
    options = {"option.entryPoint": "djl_python.sklearn_handler", "option.method": "predict_proba"}
    policy("skops-only").check(tmp_path, options, None)


def test_only_archives_on_the_list_are_permitted(tmp_path: Path) -> None:
    listed(tmp_path / "list", f"# ours\n\n{DIGEST.upper()}  churn.tar.gz\n")
    trust = policy(f"sha256:{tmp_path / 'list'}")
    trust.check(tmp_path, {}, DIGEST)
    with pytest.raises(UntrustedModel, match=f"{OTHER}, is not in {tmp_path}/list"):
        trust.check(tmp_path, {}, OTHER)
    with pytest.raises(UntrustedModel, match="a directory has none: make it an archive"):
        trust.check(tmp_path, {}, None)
    with pytest.raises(UntrustedModel, match="is not in"):
        trust.check(tmp_path, {}, DIGEST[:32])


def test_a_list_that_changes_is_read_again(tmp_path: Path) -> None:
    trust = policy(f"sha256:{listed(tmp_path / 'list', DIGEST)}")
    listed(tmp_path / "list", OTHER)
    trust.check(tmp_path, {}, OTHER)
    with pytest.raises(UntrustedModel, match="is not in"):
        trust.check(tmp_path, {}, DIGEST)


@pytest.mark.parametrize("damaged", [f"{DIGEST}\nabc\n", f"{DIGEST}\n{OTHER}0\n", None])
def test_a_list_that_cannot_be_read_trusts_nobody(tmp_path: Path, damaged: str | None) -> None:
    file = listed(tmp_path / "list", DIGEST)
    trust = policy(f"sha256:{file}")
    if damaged is None:
        file.unlink()
    else:
        listed(file, damaged)
    expected = "cannot be read: No such file" if damaged is None else "list, line 2: not a SHA-256"
    for _ in range(2):
        with pytest.raises(UntrustedModel, match=expected):
            trust.check(tmp_path, {}, DIGEST)
    with pytest.raises(StartError, match=expected):
        policy(f"sha256:{file}")
    listed(file, DIGEST)
    trust.check(tmp_path, {}, DIGEST)
