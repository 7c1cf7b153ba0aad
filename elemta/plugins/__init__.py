"""How a plugin takes part in the life of a message."""

from elemta.plugins.api import CONTINUE as CONTINUE
from elemta.plugins.api import Continue as Continue
from elemta.plugins.api import Defer as Defer
from elemta.plugins.api import Plugin as Plugin
from elemta.plugins.api import Reject as Reject
from elemta.plugins.api import Session as Session
from elemta.plugins.api import Transaction as Transaction
from elemta.plugins.api import Verdict as Verdict
from elemta.plugins.chain import Chain as Chain
from elemta.plugins.chain import hooks as hooks
from elemta.plugins.loader import Counts as Counts
from elemta.plugins.loader import Loaded as Loaded
from elemta.plugins.loader import load as load
