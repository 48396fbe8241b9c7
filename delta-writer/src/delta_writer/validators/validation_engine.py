"""The validation rules of a pipeline, applied to a batch: documents that fail are rejected, as malformed ones are."""

from dataclasses import replace

from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import DecodedEvents


def validated(source: DecodedEvents, rules: Rules) -> DecodedEvents:
    """Return the events with the documents that fail a rule among the rejected; as they are when there is no rule.

    Documents are validated as they came, before any rule changes them. What was rejected before keeps its reason.
    """
    if not rules.validates:
        return source
    events = source.events_of_rows().tolist()
    failed = rules.validate(source.decoded, source.texts, [source.events.keys[event] for event in events])
    if not failed:
        return source
    return replace(source, rejected={events[row]: why for row, why in failed.items()} | dict(source.rejected))
