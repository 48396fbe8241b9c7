"""The state of a Delta table at one version, built by applying log entries in order."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cdc_shared.delta.actions import Action, AddFile, DeletionVectorDescriptor, Metadata, Protocol


@dataclass
class Snapshot:
    """What the log says up to and with `version`. `apply` moves it forward in place.

    Attributes:
        files: live data files by path. One path is live at most once: a new vector replaces the old entry.
        txns: application versions; here the next Kafka offset for each `cdc:<topic id>:<partition>`.
    """

    version: int = -1
    protocol: Protocol | None = None
    metadata: Metadata | None = None
    txns: dict[str, int] = field(default_factory=dict)
    files: dict[str, AddFile] = field(default_factory=dict)

    def apply(self, version: int, actions: Iterable[Action]) -> None:
        """Apply the log entry of `version`, which must be the next one (protocol: "Action Reconciliation")."""
        if version != self.version + 1:
            raise ValueError(f"log entry {version} does not follow version {self.version}")
        actions = list(actions)
        self.apply_unordered(actions)
        self.version = version

    def apply_unordered(self, actions: Iterable[Action]) -> None:
        """Apply actions of a checkpoint or an entry: removes first, since an entry may swap a file's vector."""
        adds = []
        for action in actions:
            if action.add is not None:
                adds.append(action.add)
            elif action.remove is not None:
                self._remove(action.remove.path, action.remove.deletion_vector)
            elif action.txn is not None:
                self.txns[action.txn.app_id] = action.txn.version
            elif action.meta_data is not None:
                self.metadata = action.meta_data
            elif action.protocol is not None:
                self.protocol = action.protocol
        for add in adds:
            self.files[add.path] = add

    def _remove(self, path: str, vector: DeletionVectorDescriptor | None) -> None:
        live = self.files.get(path)
        if live is not None and _unique_id(live.deletion_vector) == _unique_id(vector):
            del self.files[path]


def _unique_id(vector: DeletionVectorDescriptor | None) -> str | None:
    return None if vector is None else vector.unique_id
