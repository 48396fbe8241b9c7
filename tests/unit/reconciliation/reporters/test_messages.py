"""What each channel shows: the verdict first, hostile names as text, nothing longer than the channel takes."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser

import pytest

from cdc_shared.models.reconciliation import DifferenceKind, JobState, Mode, Outcome
from reconciliation.reporters.messages import email, plain_text, slack_message, subject, webhook_body
from reconciliation.reporters.news import CollectionNews, JobNews, Verdict

pytestmark = pytest.mark.unit

AT = datetime(2026, 1, 31, 2, 3, tzinfo=UTC)
EQUAL = CollectionNews("shop", "orders", JobState.COMPLETED, Verdict(Outcome.EQUAL), None, AT, 10, 10)
WRONG = replace(
    EQUAL,
    collection="users",
    verdict=Verdict(Outcome.DIFFERENCES, {DifferenceKind.MISSING: 1_250, DifferenceKind.FILTERED: 4}),
    before=Verdict(Outcome.EQUAL),
    verified_through=None,
)
FAILED = replace(EQUAL, collection="carts", state=JobState.FAILED, verdict=None, error="Postgres does not answer")
HOSTILE = "a<!channel> *b* <script>\r\nBcc: x@evil.example\u202e"


def news(*collections: CollectionNews, state: JobState = JobState.COMPLETED, **more) -> JobNews:
    return JobNews("job-1", "shop", Mode.FULL, state, "schedule nightly", AT, collections, **more)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (news(EQUAL), "no differences"),
        (news(EQUAL, EQUAL), "no differences in 2 collections"),
        (news(WRONG), "differences"),
        (news(WRONG, EQUAL), "differences in 1 of 2 collections"),
        (news(WRONG, FAILED, EQUAL), "differences in 1 of 3 collections, 1 of 3 collections failed"),
        (news(FAILED), "the run failed"),
        (news(state=JobState.FAILED, error="no such pipeline"), "the run failed"),
        (news(replace(EQUAL, verdict=Verdict(Outcome.UNDECIDED))), "undecided"),
        (news(state=JobState.QUEUED, warning="another"), "the next run has to wait"),
        (news(state=JobState.CANCELLED), "the run was cancelled"),
    ],
)
def test_the_subject_is_the_verdict(told: JobNews, line: str) -> None:
    assert subject(told) == f"[reconciliation] shop: {line}"


def test_the_text_names_what_is_wrong_first_and_where_to_look() -> None:
    text = plain_text(news(EQUAL, WRONG, FAILED), "https://cdc.example.com/")
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines == [
        "- shop.carts: failed: Postgres does not answer",
        "- shop.users: 1,250 missing (before: equal)",
        "- shop.orders: equal, verified through 2026-01-31 02:03:00 UTC",
    ]
    assert "https://cdc.example.com/api/v1/pipelines/shop/reconciliation/jobs/job-1" in text
    assert "schedule nightly" in text


def test_a_mail_survives_its_way_and_names_cannot_add_headers() -> None:
    told = (
        news(replace(WRONG, collection=HOSTILE), requested_by=None)
        if False
        else news(replace(WRONG, collection=HOSTILE))
    )
    sent = email(told, "cdc@example.com", ["a@example.com", "b@example.com"], None).as_bytes()
    mail = BytesParser(policy=policy.default).parsebytes(sent)
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["Bcc"] is None
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == "<job-1.completed@example.com>"
    html = mail.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in mail.get_body(("plain",)).get_content()


def test_slack_takes_no_markup_from_names() -> None:
    body = slack_message(news(replace(WRONG, collection=HOSTILE)), "https://cdc.example.com")
    for block in body["blocks"]:
        for text in block.get("elements", [block.get("text")]):
            if text["type"] == "mrkdwn":
                assert "<!channel>" not in text["text"]
                assert "script" not in text["text"]
    shown = json.dumps(body["blocks"])
    assert "<!channel>" in shown, "it is in plain text"
    assert "<!channel>" not in body["text"]


def test_slack_gets_no_more_than_it_takes() -> None:
    many = [replace(FAILED, collection=f"c{number}" * 50, error="x" * 5_000) for number in range(900)]
    body = slack_message(news(*many, state=JobState.FAILED, error="y" * 10_000), None)
    assert len(body["blocks"]) <= 50
    for block in body["blocks"]:
        for text in block.get("elements", [block.get("text")]):
            assert len(text["text"]) <= 3_000
    assert "and 880 more" in json.dumps(body)


def test_the_webhook_says_all_that_programs_may_ask() -> None:
    body = webhook_body(news(WRONG, FAILED), "https://cdc.example.com")
    assert body["event"] == "reconciliation.finished"
    assert body["outcome"] == "differences"
    first, second = body["collections"]
    assert first["differences"] == {"missing": 1_250, "filtered": 4}
    assert first["before"] == {"outcome": "equal", "differences": {}}
    assert first["changed"] is True
    assert second["outcome"] is None
    assert second["error"] == "Postgres does not answer"
    assert json.loads(json.dumps(body)) == body
