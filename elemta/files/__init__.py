"""Files on a disk that may fail, among others who read and write them, and who change."""

from elemta.files.reading import Read as Read
from elemta.files.reading import TooLargeError as TooLargeError
from elemta.files.reading import open_file as open_file
from elemta.files.reading import read_file as read_file
from elemta.files.reading import read_private as read_private
from elemta.files.replacing import like_folder as like_folder
from elemta.files.replacing import make_file as make_file
from elemta.files.replacing import replace_file as replace_file
from elemta.files.replacing import sync_folder as sync_folder
from elemta.files.watching import BeingWrittenError as BeingWrittenError
from elemta.files.watching import NothingReadError as NothingReadError
from elemta.files.watching import Stamps as Stamps
from elemta.files.watching import Watched as Watched
from elemta.files.watching import stamps_of as stamps_of
