"""REST control plane of the CDC platform: pipelines, users, roles and audit."""
