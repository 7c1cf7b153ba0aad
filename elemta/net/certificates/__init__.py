"""Certificates that servers show: what they say, which is shown to whom, and what follows them."""

from elemta.net.certificates.choosing import ShownCertificates as ShownCertificates
from elemta.net.certificates.choosing import ignore_strange_names as ignore_strange_names
from elemta.net.certificates.contexts import CertificateError as CertificateError
from elemta.net.certificates.contexts import load_pair as load_pair
from elemta.net.certificates.contexts import server_context as server_context
from elemta.net.certificates.describing import Certificate as Certificate
from elemta.net.certificates.describing import described as described
from elemta.net.certificates.describing import described_as_sent as described_as_sent
from elemta.net.certificates.describing import examine as examine
from elemta.net.certificates.describing import misplaced as misplaced
from elemta.net.certificates.renewing import LOOK as LOOK
from elemta.net.certificates.renewing import Certificates as Certificates
from elemta.net.certificates.renewing import renew as renew
