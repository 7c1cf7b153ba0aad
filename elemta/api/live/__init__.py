"""What is told live, over websockets and as Server-Sent Events; and the control socket, remotely.

``add_live`` is the front door.
"""

from __future__ import annotations

from elemta.api.live.routes import add_live as add_live
