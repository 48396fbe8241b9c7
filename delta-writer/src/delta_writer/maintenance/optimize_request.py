"""OPTIMIZE and VACUUM on request: asked for in a table's properties, carried out by the writer that maintains it.

What the writer does by itself leaves some small files alone, because rewriting them with every batch would cost more
than it is worth (`rewrite_plan`); somebody who asks wants them together now. `cdc.optimize` holds the request,
`cdc.optimized` what came of the last one; a request is done when both name the same id.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.errors import Fatal
from delta_writer.maintenance.rewrite_plan import FileShape, gather_files
from delta_writer.maintenance.vacuum import Deleted
from delta_writer.writer.file_changes import FileRewrite

REQUEST: Final = "cdc.optimize"
REPORT: Final = "cdc.optimized"


class OptimizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; `vacuum`: and vacuum, out of its turn."""

    id: str
    asked_ms: int
    vacuum: bool


class OptimizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the request with this id. Sizes are in bytes; `deleted_…` are vacuum's."""

    id: str
    done_ms: int
    files_read: int
    bytes_read: int
    files_written: int
    bytes_written: int
    deleted_files: int
    deleted_bytes: int


def request_property(request: OptimizeRequest) -> dict[str, str]:
    """The table property that asks."""
    return {REQUEST: msgspec.json.encode(request).decode()}


def waiting_request(metadata: Metadata) -> OptimizeRequest | None:
    """The request that is not done yet. Raises `Fatal` for one that cannot be read."""
    text = metadata.configuration.get(REQUEST)
    if text is None:
        return None
    try:
        request = msgspec.json.decode(text, type=OptimizeRequest)
    except msgspec.DecodeError as error:
        raise Fatal(f"the table property {REQUEST} is not a request: {error}; remove it") from None
    report = last_report(metadata)
    return None if report is not None and report.id == request.id else request


def last_report(metadata: Metadata) -> OptimizeReport | None:
    """What came of the last request that was carried out."""
    text = metadata.configuration.get(REPORT)
    return None if text is None else msgspec.json.decode(text, type=OptimizeReport)


class OptimizeUnderWay:
    """A request while it is carried out: which files are still to be looked at, and what was done so far.

    Of the files that were there when it began, so that it comes to an end while the stream goes on.
    """

    def __init__(self, request: OptimizeRequest, *, rewrites: bool) -> None:
        """`rewrites`: the table's files are put together by us; otherwise by delta-rs, in its own time."""
        self.request = request
        self._left: set[str] | None = None
        self._gathered = not rewrites
        self._vacuumed = not request.vacuum
        self._read = [0, 0]
        self._written = [0, 0]
        self._deleted = [0, 0]

    @property
    def is_gathering(self) -> bool:
        return not self._gathered

    @property
    def is_done(self) -> bool:
        return self._gathered and self._vacuumed

    def choose(self, shapes: Sequence[FileShape], target_bytes: int) -> Sequence[AddFile]:
        """Return the files to rewrite next; none when all is done."""
        if self._left is None:
            self._left = {shape.file.path for shape in shapes}
        chosen = gather_files([shape for shape in shapes if shape.file.path in self._left], target_bytes)
        self._gathered = not chosen
        return chosen

    def rewrote(self, rewrite: FileRewrite, sizes: Sequence[int]) -> None:
        """Note a rewrite that is committed; `sizes` of its inputs."""
        if self._left is not None:
            self._left -= rewrite.inputs.keys()
        self._read = [self._read[0] + len(sizes), self._read[1] + sum(sizes)]
        written = [output.add.size for output in rewrite.outputs]
        self._written = [self._written[0] + len(written), self._written[1] + sum(written)]

    def vacuumed(self, *deleted: Deleted) -> None:
        """Note that vacuum has run."""
        self._vacuumed = True
        self._deleted = [
            sum(sum(each.files.values()) for each in deleted),
            sum(each.size_bytes for each in deleted),
        ]

    def report(self, now_ms: int) -> dict[str, str]:
        """The table property that says that it is done, and what was."""
        report = OptimizeReport(
            id=self.request.id,
            done_ms=now_ms,
            files_read=self._read[0],
            bytes_read=self._read[1],
            files_written=self._written[0],
            bytes_written=self._written[1],
            deleted_files=self._deleted[0],
            deleted_bytes=self._deleted[1],
        )
        return {REPORT: msgspec.json.encode(report).decode()}
