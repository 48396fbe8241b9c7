"""The embedded stack: the platform's real parts as host processes under one supervisord, all state under `.local/`."""
