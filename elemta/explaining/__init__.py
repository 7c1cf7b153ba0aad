"""Why something is as it is, and what would be decided: asked of the very parts that decide.

Rules of this package:

- Nothing is decided here. What a part of the server would say, it is asked, and in its own order;
  here stand only the words for people.
- Nothing is changed, nobody is told, and no other host but DNS is asked.
- Trouble is an answer. Every answer comes in bounded time.
"""
