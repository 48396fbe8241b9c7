"""Every route that the control plane serves, whatever router it came by."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute


@dataclass(frozen=True, slots=True)
class ServedRoute:
    """One method of one path."""

    method: str
    path: str
    """Its template, `/api/v1/pipelines/{name}`."""
    route: BaseRoute = field(compare=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def url(self, pipeline: str = "nowhere") -> str:
        """The path with values that name nothing, but for the pipeline."""
        filled = self.path.replace("{name}", pipeline)
        while "{" in filled:
            before, _, rest = filled.partition("{")
            filled = before + str(uuid.uuid4()) + rest.partition("}")[2]
        return filled


def served_routes(app: FastAPI) -> list[ServedRoute]:
    """All of them, sorted; one without methods, as a mounted application, under the method `*`."""
    found = [
        ServedRoute(method, context.path_format or context.path or "?", context.original_route)
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods or {"*"})
    ]
    return sorted(found, key=str)
