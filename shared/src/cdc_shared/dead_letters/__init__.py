"""Records that could not be applied: why, where they are kept, and how they are tried again or given up.

`dead_letters.DeadLetters` is what people do with them; the writer's part is `delta_writer.writer.dlq_writer`.
"""
