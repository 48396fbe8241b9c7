"""The data-quality rules that a pipeline applies now; they may be replaced while it runs."""

from cdc_shared.models.data_quality import QualitySpec


class QualityInForce:
    """Read by the pipeline's thread at the beginning of each batch, replaced by the service's."""

    def __init__(self, spec: QualitySpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> QualitySpec:
        """What is in force at this moment. Take it once for a batch: the next look may see another."""
        return self._spec

    def replace(self, spec: QualitySpec) -> None:
        """Put other rules in force, from the next batch on."""
        self._spec = spec
