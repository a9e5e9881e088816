"""`kvcache.scrub`: what a message shows of credentials."""

import pytest

from kvcache import scrub


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer tops3cret", "Authorization: Bearer ***"),
        ("authorization: basic dG9wczNjcmV0", "authorization: basic ***"),
        ("Authorization: tops3cret", "Authorization: ***"),
        ("authorization bearer tops3cret and more", "authorization bearer *** and more"),
        ("a bearer tops3cret, a token tops3cret", "a bearer *** a token ***"),
        ("failed: https://u:tops3cret@h/x?token=tops3cret", "failed: https://u:***@h/x?token=***"),
        ("used ghp_tops3cret", "used ***"),
    ],
)
def test_credentials_in_a_message(text: str, shown: str) -> None:
    assert scrub(text) == shown
