"""What is needed of LDAP (RFC 4511) to ask a directory who somebody is: search, and bind as him.

Our own, as there is no library that would do: the one in pure Python has had no release for years
and no types, others have no wheels, and all of them block. It is little: two requests, StartTLS,
and of ASN.1 what these are made of.
"""

from elemta.net.ldap.client import Entry as Entry
from elemta.net.ldap.client import LdapClient as LdapClient
from elemta.net.ldap.client import LdapError as LdapError
from elemta.net.ldap.filters import compile_filter as compile_filter
from elemta.net.ldap.filters import escaped as escaped
