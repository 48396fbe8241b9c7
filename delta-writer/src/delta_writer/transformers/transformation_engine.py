"""The transformation rules of a pipeline, applied to a batch: from here on there are only the documents that they made.

Masks among them hide values from every table and from all that is derived of one, keys included. What was read from
Kafka stays as it was for the dead letters alone, which are encrypted.
"""

from dataclasses import replace

from cdc_shared.documents import FieldPolicies
from cdc_shared.rules.compiled import Rules
from delta_writer.transformers.bson_to_delta import DecodedEvents


def transformed(source: DecodedEvents, rules: Rules, policies: FieldPolicies) -> DecodedEvents:
    """Return the events with documents and keys as the rules make them, and which version of the rules that was.

    `decoded` then has a schema of the rules' making, which is not yet the table's.
    """
    source = replace(source, rules_version=rules.version, key_mask=rules.key_mask)
    if not rules.transforms:
        return source
    result = rules.transform(source.decoded, source.texts, policies=policies)
    events = source.events
    if rules.changes_keys:
        events = replace(events, keys=[rules.key_text(key) for key in events.keys])
    return replace(source, events=events, decoded=result.decoded, changed_values=result.counts)
