"""URIs without secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.uris import has_userinfo, public_uri, redact_uris


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("/a/b?c#d.jpg", "/a/b?c#d.jpg"),
        ("a/b.jpg", "a/b.jpg"),
        ("s3://bucket/a?b#c.jpg", "s3://bucket/a?b#c.jpg"),
        ("s3://bucket/a.jpg?versionId=7", "s3://bucket/a.jpg"),
        ("s3://KEY:SECRET@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("https://host:8080/a@b.jpg", "https://host:8080/a@b.jpg"),
        ("HTTPS://ann:p@ss@host/a.jpg#x", "https://host/a.jpg"),
        ("http://ann:pa/ss@host/a.jpg", "http://host/a.jpg"),
        ("http://token@host", "http://host"),
        ("http://host?sig=x", "http://host"),
        ("http://[::1]:80/a?b", "http://[::1]:80/a"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("zip://a.jpg::http://u:p@h/a.zip?s=1", "zip://a.jpg::http://h/a.zip"),
        ("simplecache::https://a:b@h/x?s=1", "simplecache::https://h/x"),
    ],
)
def test_a_public_uri_has_no_credentials_or_query(uri: str, public: str) -> None:
    assert public_uri(uri) == public
    assert public_uri(public) == public


def test_uris_in_errors_of_other_libraries_are_redacted() -> None:
    message = "403, url=URL('https://u:p@h/x.jpg?X-Amz-Signature=SECRET'); Max retries exceeded with url: /x?sig=SECRET (no)"
    assert redact_uris(message) == "403, url=URL('https://h/x.jpg'); Max retries exceeded with url: /x (no)"


_SECRET = st.text("abcdefXYZ0123456789%._~!$&*+,;=:-", min_size=3, max_size=20).map(
    lambda text: f"S3CR{text}"
)


@given(_SECRET, _SECRET, _SECRET, st.sampled_from(["http", "https", "s3", "gs", "ftp", "sftp"]))
def test_no_password_or_signature_survives(user: str, password: str, signature: str, scheme: str) -> None:
    uri = f"{scheme}://{user}:{password}@host/a/1.jpg?X-Sig={signature}"
    assert has_userinfo(uri)
    for shown in (public_uri(uri), redact_uris(f"error at {uri} (again)")):
        assert "S3CR" not in shown
        assert f"{scheme}://host/a/1.jpg" in shown
