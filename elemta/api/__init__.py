"""The server over HTTP: REST, live events, the dashboard."""
