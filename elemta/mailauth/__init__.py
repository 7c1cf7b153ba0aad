"""Does the message tell the truth? SPF, DKIM, ARC, DMARC and the names of addresses."""

from elemta.mailauth.asking import InThread as InThread
from elemta.mailauth.iprev import Iprev as Iprev
from elemta.mailauth.iprev import IprevResult as IprevResult
from elemta.mailauth.iprev import check_iprev as check_iprev
from elemta.mailauth.spf import Spf as Spf
from elemta.mailauth.spf import SpfResult as SpfResult
from elemta.mailauth.spf import check_spf as check_spf
