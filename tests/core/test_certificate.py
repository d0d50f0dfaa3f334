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
              "audit": {"findings": ["gone"]}}  # fmt: skip
    return certificate.issue(**{**values, **changes}, key=KEY)


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
     ("signature", "no hex"), ("signer", "11" * 32)],
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
        made(audit={"auc": float("nan")})


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=20, unique=True), st.randoms())
def test_the_root_depends_on_the_set_alone(values, random):
    digests = [hashlib.sha256(v).hexdigest() for v in values]
    shuffled = digests.copy()
    random.shuffle(shuffled)
    assert certificate.merkle_root(digests) == certificate.merkle_root(shuffled)
    if len(digests) > 1:
        assert certificate.merkle_root(digests) != certificate.merkle_root(digests[1:])
