"""Line ends of content that is cut anywhere: as the wire has them, and as files have them."""

from __future__ import annotations

from elemta.protocol import has_clean_lines


class LineEnds:
    """Makes every line end in CRLF, the last one too, for BDAT; DATA has its own way (`content`).

    No host shall ever find another end of a line than we do; what came in by SMTP is clean
    already, so that this looks at it and no more.
    """

    def __init__(self) -> None:
        self._carriage_return = False  # one that is not handed out yet
        self._ended = True

    def feed(self, octets: bytes) -> bytes:
        """The next piece; it may lack its last octet, which then comes with the next."""
        if self._carriage_return:
            octets = b"\r" + octets
        self._carriage_return = octets.endswith(b"\r")
        if self._carriage_return:
            octets = octets[:-1]
        if octets:
            if not has_clean_lines(octets):
                octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                octets = octets.replace(b"\n", b"\r\n")
            self._ended = octets.endswith(b"\r\n")
        return octets

    def end(self) -> bytes:
        """What is missing at the end."""
        return b"\r\n" if self._carriage_return or not self._ended else b""


class UnixLines:
    """Makes every CRLF an LF, wherever the content is cut; other octets stay as they are."""

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may come in the next piece

    def feed(self, octets: bytes) -> bytes:
        """The next piece; it may lack its last octet, which then comes with the next."""
        octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        return octets[: len(octets) - len(self._held)].replace(b"\r\n", b"\n")

    def end(self) -> bytes:
        """What is left."""
        return self._held
