"""Who may send, and as whom: what is kept of a password, and how guesses are slowed down.

Where users are kept, and how they are asked, is for plugins of the kind "authentication".
"""

from elemta.login.patterns import owns
from elemta.login.scram import ScramVerifier

__all__ = ["ScramVerifier", "owns"]
