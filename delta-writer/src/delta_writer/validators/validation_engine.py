"""The validation rules of a pipeline, applied to a batch: documents that fail are rejected, as malformed ones are."""

from cdc_shared.documents import FieldPolicies
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import DecodedEvents, decode_events


def validated(source: DecodedEvents, rules: Rules, policies: FieldPolicies) -> DecodedEvents:
    """Return the events with the documents that fail a rule among the rejected; as they are when there is no rule.

    Documents are validated as they came, before any rule changes them. What was rejected before keeps its reason. A
    document that is rejected leaves no trace, neither in the schema nor among the conflicts that promote a column:
    where it may have, the others are decoded without it.
    """
    if not rules.validates:
        return source
    events = source.events_of_rows().tolist()
    failed = rules.validate(source.decoded, source.texts, [source.events.keys[event] for event in events])
    if not failed:
        return source
    rejected = {events[row]: why for row, why in failed.items()} | dict(source.rejected)
    if source.source_schema.typed() != source.known_schema.typed() or source.decoded.stats.rescued_values:
        return decode_events(source.events, source.known_schema, rejected, policies)
    return source.without(rejected)
