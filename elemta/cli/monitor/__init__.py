"""``elemta monitor``: the server in a terminal, as it happens."""
