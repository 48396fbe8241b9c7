"""A typed client of the API: `ControlPlane` in `control_plane.client.control_plane`, its errors in `errors`."""
