"""How the running server is looked at and steered: one typed interface, and a socket for it."""
