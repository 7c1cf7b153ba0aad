"""RFC 5322 without I/O: headers read, trace fields and reports written."""

from elemta.message.author import AuthorError as AuthorError
from elemta.message.author import author_domains as author_domains
from elemta.message.author import author_mailboxes as author_mailboxes
from elemta.message.author import hidden_author as hidden_author
from elemta.message.header import HeaderFault as HeaderFault
from elemta.message.header import HeaderScanner as HeaderScanner
from elemta.message.header import split as split
from elemta.message.header import without as without
from elemta.message.notice import write_notice as write_notice
from elemta.message.report import write_report as write_report
from elemta.message.srs import Srs as Srs
from elemta.message.srs import is_rewritten as is_rewritten
from elemta.message.status import Action as Action
from elemta.message.status import RecipientStatus as RecipientStatus
from elemta.message.trace import MAX_HOPS as MAX_HOPS
from elemta.message.trace import date as date
from elemta.message.trace import delivered_to as delivered_to
from elemta.message.trace import fold as fold
from elemta.message.trace import received as received
from elemta.message.trace import return_path as return_path
from elemta.message.words import encoded as encoded
