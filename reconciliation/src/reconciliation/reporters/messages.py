"""One job's news in the words of each channel. Names are shown as text; no value of a document is in any of them."""

from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Any, Final
from urllib.parse import quote

from cdc_shared.models.reconciliation import JobState, Outcome
from reconciliation.reporters.news import CollectionNews, JobNews, Verdict
from reconciliation.reporters.report import instant
from reconciliation.reporters.visible_text import shortened, visible

TOLD_COLLECTIONS: Final = 20
"""Those that are wrong or failed come first; of the others the number is told."""
REASON_LENGTH: Final = 300
SLACK_TEXT_LENGTH: Final = 2_900
"""Slack refuses a section of more than 3,000 characters."""
_RANK: Final = {Outcome.DIFFERENCES: 1, Outcome.UNDECIDED: 2, Outcome.EQUAL: 3}


def subject(news: JobNews) -> str:
    """Return the message in one line."""
    return f"[reconciliation] {news.pipeline}: {_verdict(news)}"


def plain_text(news: JobNews, api_url: str | None) -> str:
    """Return the message as plain text."""
    lines = [f"Pipeline {news.pipeline}: {_verdict(news)}.", ""]
    lines += [f"- {_name(each)}: {_finding(each)}" for each in _told(news)]
    lines += [_more(news)] * bool(_more(news))
    lines += [f"\n{reason}" for reason in _reasons(news)]
    lines += ["", f"Mode {news.mode.value}, asked for by {visible(news.requested_by)}, {instant(news.at)}."]
    if api_url:
        lines.append(f"{_job_url(api_url, news)}")
    return "\n".join([*lines, ""])


def email(news: JobNews, sender: str, to: Sequence[str], api_url: str | None) -> EmailMessage:
    """Return the mail, as plain text and as HTML. Sent twice, it has the same Message-ID."""
    mail = EmailMessage()
    mail["Subject"] = shortened(subject(news), 200)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(news.at)
    mail["Message-ID"] = f"<{news.job_id}.{news.state.value}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(plain_text(news, api_url))
    mail.add_alternative(_html(news, api_url), subtype="html")
    return mail


def slack_message(news: JobNews, api_url: str | None) -> dict[str, Any]:
    """Return the body for an incoming webhook: blocks, and the text that notifications of phones show."""
    mark = {"good": ":white_check_mark:", "bad": ":red_circle:", "unsure": ":warning:"}[_tone(news)]
    found = "\n".join(f"• {_name(each)}: {_finding(each)}" for each in _told(news))
    sections = [{"type": "section", "text": _text(part)} for part in (found, _more(news), *_reasons(news)) if part]
    asked = f"Mode {news.mode.value}, asked for by {visible(news.requested_by)}, {instant(news.at)}"
    link = [_mrkdwn(f"<{_job_url(api_url, news)}|job>")] if api_url else []
    return {
        "text": subject(news),
        "blocks": [
            {"type": "section", "text": _mrkdwn(f"{mark} *{news.pipeline}*: {_verdict(news)}")},
            *sections,
            {"type": "context", "elements": [_text(asked), *link]},
        ],
    }


def webhook_body(news: JobNews, api_url: str | None) -> dict[str, Any]:
    """Return the JSON of a generic webhook; docs/runbooks/reconciliation.md describes it."""
    return {
        "format": 1,
        "event": "reconciliation.waits" if news.waits else "reconciliation.finished",
        "job_id": news.job_id,
        "pipeline": news.pipeline,
        "mode": news.mode.value,
        "state": news.state.value,
        "outcome": _worst(news),
        "at": news.at.isoformat(),
        "requested_by": news.requested_by,
        "warning": news.warning,
        "error": news.error,
        "url": _job_url(api_url, news) if api_url else None,
        "collections": [
            {
                "database": each.database,
                "collection": each.collection,
                "state": each.state.value,
                "changed": each.is_changed,
                **_verdict_json(each.verdict),
                "before": _verdict_json(each.before) if each.before else None,
                "verified_through": each.verified_through.isoformat() if each.verified_through else None,
                "documents": each.documents,
                "rows": each.rows,
                "error": each.error,
            }
            for each in news.collections
        ],
    }


def _verdict(news: JobNews) -> str:
    if news.waits:
        return "the next run has to wait"
    if news.state in (JobState.CANCELLED, JobState.SKIPPED):
        return f"the run was {news.state.value}"
    total = len(news.collections)
    of = f" of {total} collections"
    failed = sum(each.state is JobState.FAILED for each in news.collections)
    wrong, undecided = (len(news.of_outcome(each)) for each in (Outcome.DIFFERENCES, Outcome.UNDECIDED))
    told = []
    if wrong:
        told.append(f"differences in {wrong}{of}" if total != 1 else "differences")
    if failed or news.state is JobState.FAILED:
        told.append(f"{failed}{of} failed" if failed and total != 1 else "the run failed")
    if undecided:
        told.append(f"{undecided}{of} undecided" if total != 1 else "undecided")
    return ", ".join(told) or ("no differences" if total == 1 else f"no differences in {total} collections")


def _finding(each: CollectionNews) -> str:
    if each.verdict is None:
        return each.state.value + (f": {_reason(each.error)}" if each.error else "")
    before = f" (before: {_told_verdict(each.before)})" if each.before and each.is_changed else ""
    through = f", verified through {instant(each.verified_through)}" if each.verified_through else ""
    return f"{_told_verdict(each.verdict)}{through}{before}"


def _told_verdict(verdict: Verdict) -> str:
    if verdict.outcome is not Outcome.DIFFERENCES:
        return verdict.outcome.value
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in verdict.wrong.items())


def _told(news: JobNews) -> list[CollectionNews]:
    def rank(each: CollectionNews) -> tuple[int, bool, str]:
        return (_RANK[each.verdict.outcome] if each.verdict else 0, not each.is_changed, _name(each))

    return sorted(news.collections, key=rank)[:TOLD_COLLECTIONS]


def _more(news: JobNews) -> str:
    more = len(news.collections) - TOLD_COLLECTIONS
    return f"and {more} more" if more > 0 else ""


def _reasons(news: JobNews) -> list[str]:
    return [_reason(text) for text in (news.warning, news.error) if text]


def _reason(text: str) -> str:
    return shortened(visible(text), REASON_LENGTH)


def _name(each: CollectionNews) -> str:
    return visible(f"{each.database}.{each.collection}")


def _worst(news: JobNews) -> str | None:
    return next((outcome.value for outcome in _RANK if news.of_outcome(outcome)), None)


def _verdict_json(verdict: Verdict | None) -> Mapping[str, Any]:
    counts = verdict.differences if verdict else {}
    return {
        "outcome": verdict.outcome.value if verdict else None,
        "differences": {kind.value: count for kind, count in counts.items() if count},
    }


def _tone(news: JobNews) -> str:
    if news.failed or news.of_outcome(Outcome.DIFFERENCES):
        return "bad"
    return "unsure" if news.state is not JobState.COMPLETED or news.of_outcome(Outcome.UNDECIDED) else "good"


def _job_url(api_url: str, news: JobNews) -> str:
    return f"{api_url.rstrip('/')}/api/v1/pipelines/{quote(news.pipeline)}/reconciliation/jobs/{quote(news.job_id)}"


def _mrkdwn(text: str) -> dict[str, str]:
    """Slack's own markup: only of words that are ours."""
    return {"type": "mrkdwn", "text": text}


def _text(text: str) -> dict[str, Any]:
    """Text in which Slack looks for no link, mention or format."""
    return {"type": "plain_text", "text": shortened(text, SLACK_TEXT_LENGTH), "emoji": False}


def _html(news: JobNews, api_url: str | None) -> str:
    colour = {"good": "#1a7f4b", "bad": "#c02b37", "unsure": "#9a6700"}[_tone(news)]
    cell = "padding:4px 16px 4px 0;vertical-align:top"
    rows = "".join(
        f'<tr><td style="{cell}"><b>{escape(_name(each))}</b></td><td style="{cell}">{escape(_finding(each))}</td></tr>'
        for each in _told(news)
    )
    rest = "".join(f"<p>{escape(text)}</p>" for text in (_more(news), *_reasons(news)) if text)
    link = f'<p><a href="{escape(_job_url(api_url, news))}">The job</a></p>' if api_url else ""
    return (
        '<div style="font:15px/1.5 sans-serif;max-width:720px">'
        f'<p style="border-left:5px solid {colour};padding-left:12px;font-size:17px">'
        f"Pipeline <b>{escape(news.pipeline)}</b>: {escape(_verdict(news))}</p>"
        f"<table>{rows}</table>{rest}{link}"
        f'<p style="color:#667">Mode {news.mode.value}, asked for by {escape(visible(news.requested_by))}, '
        f"{instant(news.at)}</p></div>"
    )
