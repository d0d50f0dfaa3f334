"""Deletion certificates: what they bind cannot be changed, exchanged or signed by somebody else."""

from __future__ import annotations

import copy
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.core import certificate
from vestige.core.errors import InputError, NotVerifiedError

KEY = b"k" * 32
DIGESTS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]


def made(**changes):
    values = {"before": "aa", "after": "bb", "requests": DIGESTS, "method": "ssd", "parameters": {"alpha": 10.0},
              "audit": {"findings": ["gone"], "verdict": "deleted", "power": 0.9}, "build": "cc"}  # fmt: skip
    return certificate.issue(**{"key": KEY, **values, **changes})


def test_an_untouched_certificate_is_verified():
    document = made()
    certificate.verify(document)
    certificate.verify(document, expected=certificate.signer(KEY).upper())
    certificate.compare(document, "before", "aa")
    certificate.compare_requests(document, reversed(DIGESTS))
    assert document["requests"]["count"] == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("before", "ab"), ("after", "aa"), ("method", "retrain"), ("parameters", {"alpha": 1.0}), ("made", "2000"),
     ("requests", {"count": 4, "root": "00"}), ("audit", {"findings": ["all gone"]}), ("signature", "00" * 64),
     ("signature", "no hex"), ("signer", "11" * 32), ("verdict", "suppressed"), ("power", 1.0), ("build", "")],
)  # fmt: skip
def test_every_change_is_noticed(field, value):
    document = copy.deepcopy(made())
    document[field] = value
    with pytest.raises(NotVerifiedError):
        certificate.verify(document)


def test_what_is_no_certificate_is_said():
    for wrong in ([], {}, {"kind": "letter"}, {**made(), "more": 1}, {**made(), "schema": 9}):
        with pytest.raises(InputError, match="certificate"):
            certificate.verify(wrong)
    with pytest.raises(NotVerifiedError, match="another key"):
        certificate.verify(made(), expected="00" * 32)


def test_other_files_do_not_fit():
    document = made()
    with pytest.raises(NotVerifiedError, match="after forgetting"):
        certificate.compare(document, "after", "cc")
    for other in (DIGESTS[:4], [*DIGESTS, DIGESTS[0]], [*DIGESTS[:4], "00" * 32]):
        with pytest.raises(NotVerifiedError, match="requests"):
            certificate.compare_requests(document, other)
    with pytest.raises(InputError, match="no request"):
        made(requests=[])
    with pytest.raises(InputError, match="NaN"):
        made(audit={"verdict": "deleted", "power": 1.0, "auc": float("nan")})
    with pytest.raises(InputError, match="verdict"):
        made(audit={"findings": []})


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=20, unique=True), st.randoms())
def test_the_root_depends_on_the_set_alone(values, random):
    digests = [hashlib.sha256(v).hexdigest() for v in values]
    shuffled = digests.copy()
    random.shuffle(shuffled)
    assert certificate.merkle_root(digests) == certificate.merkle_root(shuffled)
    if len(digests) > 1:
        assert certificate.merkle_root(digests) != certificate.merkle_root(digests[1:])


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, name))
    else:
        yield path


def test_no_leaf_can_be_changed():
    document = made(audit={"verdict": "deleted", "power": 0.9, "tests": [{"effect": 0.1, "name": "loss"}], "n": 3})
    for path in leaves(document):
        changed = copy.deepcopy(document)
        at = changed
        for name in path[:-1]:
            at = at[name]
        value = at[path[-1]]
        at[path[-1]] = value + 1 if isinstance(value, int | float) else f"{value}0"
        with pytest.raises((NotVerifiedError, InputError)):
            certificate.verify(changed, expected=certificate.signer(KEY))


def test_only_the_verdict_makes_a_deletion_certificate():
    assert certificate.is_deletion(made())
    record = made(audit={"verdict": "suppressed", "power": 0.9})
    assert not certificate.is_deletion(record)
    certificate.verify(record)
    # Somebody with a key of their own who writes the kind by hand contradicts the audit they sign.
    forged = {**record, "kind": certificate.DELETION}
    del forged["signature"]
    forged["signature"] = certificate._private(KEY).sign(certificate._canonical(forged)).hex()
    with pytest.raises(NotVerifiedError, match="contradicts itself"):
        certificate.verify(forged)


def test_another_signer_and_keys_that_anybody_can_sign_for_are_refused():
    other = made(key=b"o" * 32)
    certificate.verify(other)
    with pytest.raises(NotVerifiedError, match="another key"):
        certificate.verify(other, expected=certificate.signer(KEY))
    small = ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "00" * 31 + "80",
             "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
             "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"]  # fmt: skip
    for key in small:
        with pytest.raises(NotVerifiedError, match="small order"):
            certificate.verify({**made(), "signer": key})
    with pytest.raises(NotVerifiedError, match="canonical"):
        certificate.public_key("f0" + "ff" * 30 + "7f")
    with pytest.raises(NotVerifiedError, match="no public key"):
        certificate.public_key("AB" * 32)


def test_files_are_parsed_strictly(tmp_path):
    path = tmp_path / "c.json"
    certificate.write(path, made())
    certificate.verify(certificate.read(path))
    text = path.read_text()
    path.write_text(text.replace('"method": "ssd"', '"method": "retrain",\n  "method": "ssd"'))
    with pytest.raises(NotVerifiedError, match="'method' twice"):
        certificate.read(path)
    path.write_text(text.replace("  ", " "))
    with pytest.raises(NotVerifiedError, match="canonical form"):
        certificate.read(path)
    path.write_text(text.replace("0.9", "NaN"))
    with pytest.raises(InputError, match="NaN"):
        certificate.read(path)
    with pytest.raises(InputError, match="does not exist"):
        certificate.read(tmp_path / "none")


def test_the_code_that_builds_the_network_is_bound():
    document = made(build=hashlib.sha256(b"def net(): ...").hexdigest())
    certificate.compare_build(document, b"def net(): ...")
    with pytest.raises(NotVerifiedError, match="builds the network"):
        certificate.compare_build(document, b"def net(): pass")


def test_a_trust_file_names_signers(tmp_path):
    path, key = tmp_path / "signers.txt", certificate.signer(KEY)
    certificate.trust(path, key, "the # office")
    certificate.trust(path, key, "again")
    assert certificate.trusted(path) == {key: "the office"}
    path.write_text("00 nobody\n")
    with pytest.raises(InputError, match="line 1"):
        certificate.trusted(path)
