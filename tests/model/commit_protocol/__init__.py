"""A model of how writers share a table, small enough that every interleaving can be looked at.

It mirrors the code step by step, function by function; a step is what happens between two looks at what is shared:

* `store`: the log of the table (`cdc_shared.delta`), with puts that time out, arrive late or never;
* `stream`: the events in Kafka, and what a table must hold that stands at given offsets;
* `writer`: a process (`pipeline.py`, `writer/batch_processor.py`, `writer/delta_writer.py`);
* `rewriting`: commits that are not batches (`DeletionVectorWriter.replace_files` and `delete_rows`);
* `protections`: what keeps the invariants, each of which can be taken away;
* `invariants`: what must hold in every state (docs/architecture/data-flow.md);
* `explorer`: breadth-first search through the states, with the shortest trace to a violation.
"""
