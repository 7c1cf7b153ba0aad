"""The part of google-re2 that is used here."""

class error(Exception):
    # What is wrong, in UTF-8.
    args: tuple[bytes]

class Options:
    max_mem: int
    log_errors: bool
    dot_nl: bool
    never_capture: bool
    case_sensitive: bool

class _Regexp:
    @property
    def programsize(self) -> int: ...
    def search(self, text: bytes) -> object | None: ...

def compile(pattern: bytes, options: Options | None = ...) -> _Regexp: ...
