"""What schemathesis cannot make by itself: a message."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.media_type(
    "message/rfc822",
    st.sampled_from([b"Subject: x\r\n\r\nhello\r\n", b"Subject: x\n\nhello\n", b"hello\r\n"]),
)
