"""Tables of names to others, kept elsewhere: in files, in databases, behind HTTP.

A table that cannot be asked says so (`MapDownError`), and never that something is not there.
"""

from elemta.maps.file import look_at as look_at
from elemta.maps.keys import domain_keys as domain_keys
from elemta.maps.keys import keys_of as keys_of
from elemta.maps.maps import Maps as Maps
from elemta.maps.returning import srs_of as srs_of
from elemta.maps.source import MapDownError as MapDownError
from elemta.maps.sql import SQLITE as SQLITE
from elemta.maps.sql import database_of as database_of
