"""`delta-writer dead-letters`: list, show, replay and discard records that could not be applied."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from cdc_shared.dead_letters.dead_letters import DeadLetters, Replayed, Which
from cdc_shared.dead_letters.letter import ALL_LETTERS, Letter, LetterFilter, Place
from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.errors import CdcError
from cdc_shared.kafka.spec_topic import read_spec
from cdc_shared.logging.structured_logger import configure_logging
from cdc_shared.security.data_key import DataKeys, DataKeySettings
from cdc_shared.security.references import secret_providers
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings, SecretsSettings, load_settings
from delta_writer.plain_errors import plain_errors

EVERYTHING: Final = "say which: LETTER..., options that tell the letters apart, or --all"

dead_letters_app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be applied: list, show, replay, discard. LETTER is topic:partition:offset, as listed.",
)

Pipeline = Annotated[str | None, typer.Option(help="Only this pipeline's.")]
Collection = Annotated[str | None, typer.Option(help="Only this collection's, without its database.")]
Code = Annotated[ReasonCode | None, typer.Option(help="Only those rejected for this reason.")]
Rule = Annotated[str | None, typer.Option(help="Only those that failed this validation rule.")]
Since = Annotated[str | None, typer.Option(help="Only those written at or after this time (2026-01-31T12:00:00Z).")]
Until = Annotated[str | None, typer.Option(help="Only those written before this time.")]
Everything = Annotated[bool, typer.Option("--all", help="Every letter of every pipeline.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Letters = Annotated[list[str] | None, typer.Argument(metavar="LETTER...", help="topic:partition:offset, as listed.")]


@dead_letters_app.command("list")
def list_letters(
    pipeline: Pipeline = None,
    collection: Collection = None,
    code: Code = None,
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the oldest first.")] = 50,
    after: Annotated[int, typer.Option(help="Go on behind an earlier list, as it said at its end.")] = -1,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first. Needs no key."""
    with plain_errors():
        which = _filter(pipeline, collection, code, rule, since, until)
        page = _dead_letters().list_letters(which, limit, after)
        if as_json:
            letters = [_described(each.letter, each.written_ms) for each in page.letters]
            _print({"letters": letters, "next_after": page.next_after})
            return
        for each in page.letters:
            typer.echo(_line(each.letter, each.written_ms))
        if not page.letters:
            typer.echo("no dead letters")
        if page.next_after is not None:
            typer.echo(f"there are more: --after {page.next_after}")


@dead_letters_app.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="topic:partition:offset, as listed.")],
    reveal: Annotated[bool, typer.Option("--reveal", help="With the values, not only their types.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter and the structure of what is in it. Needs the key (CDC_DATA_KEY)."""
    with plain_errors():
        shown = _dead_letters().show(Place.parse(letter), reveal=reveal)
        described = _described(shown.letter, shown.written_ms) | {
            "revealed": shown.revealed,
            "record": {"key": shown.key, "value": shown.value},
        }
        if as_json:
            _print(described)
            return
        for name, value in described.items():
            if value is None:
                continue
            text = json.dumps(value, indent=2, ensure_ascii=False) if name == "record" else value
            typer.echo(f"{name.replace('_', ' ')}: {text}")


@dead_letters_app.command()
def replay(
    letters: Letters = None,
    pipeline: Pipeline = None,
    collection: Collection = None,
    code: Code = None,
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Try letters again: the writer reads their documents from MongoDB as they are now. Needs the key (CDC_DATA_KEY).

    Nothing newer is overwritten, nothing deleted comes back. A history table also gets the event itself, which has to
    pass the rules in force. A letter that is rejected again is a new letter, one attempt further.
    """
    with plain_errors():
        dead_letters, total = _dead_letters(), Replayed()
        try:
            for which in _which(letters, _filter(pipeline, collection, code, rule, since, until), everything):
                done = dead_letters.replay(which, _progress("replayed"))
                total.replayed += done.replayed
                total.refused += done.refused
                total.examples += done.examples
        except CdcError:
            if total.replayed:
                _say_replayed(total, as_json=as_json)
            raise
        _say_replayed(total, as_json=as_json)
        if total.refused:
            raise typer.Exit(1)


@dead_letters_app.command()
def discard(
    letters: Letters = None,
    pipeline: Pipeline = None,
    collection: Collection = None,
    code: Code = None,
    rule: Rule = None,
    since: Since = None,
    until: Until = None,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give letters up for good; their content is deleted."""
    with plain_errors():
        wanted = _which(letters, _filter(pipeline, collection, code, rule, since, until), everything)
        dead_letters, discarded = _dead_letters(), 0
        if not letters and not yes and (fitting := sum(dead_letters.count(which) for which in wanted)):
            typer.confirm(f"Discard {_plural(fitting)}? The content will be gone.", abort=True, err=as_json)
        try:
            for which in wanted:
                discarded += dead_letters.discard(which, _progress("discarded"))
        except CdcError:
            if discarded:
                _say_discarded(discarded, as_json=as_json)
            raise
        _say_discarded(discarded, as_json=as_json)


def _dead_letters() -> DeadLetters:
    configure_logging("delta-writer", "WARNING", "console")
    kafka = load_settings(KafkaSettings)
    return DeadLetters.on(
        kafka.bootstrap_servers,
        _data_keys,
        load_settings(ObjectStoreSettings),
        lambda name: read_spec(kafka.bootstrap_servers, name, kafka.pipelines_topic),
    )


def _data_keys() -> DataKeys:
    return DataKeys.resolve(load_settings(DataKeySettings).reference, secret_providers(load_settings(SecretsSettings)))


def _filter(
    pipeline: str | None,
    collection: str | None,
    code: ReasonCode | None,
    rule: str | None,
    since: str | None,
    until: str | None,
) -> LetterFilter:
    return LetterFilter(
        pipeline=pipeline,
        collection=collection,
        code=code and code.value,
        rule=rule,
        since_ms=_time_ms("--since", since),
        until_ms=_time_ms("--until", until),
    )


def _which(letters: list[str] | None, which: LetterFilter, everything: bool) -> list[Which]:
    if letters:
        if everything or which != ALL_LETTERS:
            raise typer.BadParameter("give letters, or options that tell them apart, and not both")
        return [Place.parse(each) for each in letters]
    if everything == (which != ALL_LETTERS):
        raise typer.BadParameter(EVERYTHING if not everything else "--all leaves no room for other options")
    return [which]


def _time_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text}: write a time as 2026-01-31T12:00:00Z") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _described(letter: Letter, written_ms: int) -> dict[str, Any]:
    described = asdict(letter) | {"letter": str(letter.place)}
    del described["place"], described["first_seen_ms"]
    times = {"first_seen": _time(letter.first_seen_ms), "written": _time(written_ms)}
    return {"letter": described.pop("letter"), **described, **times}


def _line(letter: Letter, written_ms: int) -> str:
    rule = f" ({letter.rule})" if letter.rule else ""
    again = f", attempt {letter.attempt}" if letter.attempt > 1 else ""
    return f"{_time(written_ms)}  {letter.place}  {letter.pipeline}  {letter.code}{rule}: {letter.message}{again}"


def _say_discarded(discarded: int, *, as_json: bool) -> None:
    if as_json:
        _print({"discarded": discarded})
    else:
        typer.echo(f"{_plural(discarded)} discarded")


def _say_replayed(total: Replayed, *, as_json: bool) -> None:
    if as_json:
        examples = [{"letter": str(place), "reason": reason} for place, reason in total.examples]
        _print({"replayed": total.replayed, "refused": dict(total.refused), "examples": examples})
        return
    typer.echo(f"{_plural(total.replayed)} replayed")
    for reason, count in total.refused.most_common():
        typer.echo(f"{_plural(count)} cannot be: {reason}", err=True)
    for place, _ in total.examples:
        typer.echo(f"  {place}", err=True)


def _progress(what: str) -> Any:
    return lambda count: typer.echo(f"{count} {what} ...", err=True) if count >= 1000 else None


def _plural(count: int) -> str:
    return f"{count} letter{'s' * (count != 1)}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))
