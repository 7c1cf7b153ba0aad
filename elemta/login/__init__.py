"""Who may send: what is kept of a password in place of it, and how guesses are slowed down.

Where users are kept, and how they are asked, is for plugins of the kind "authentication".
"""

from elemta.login.scram import ScramVerifier

__all__ = ["ScramVerifier"]
