"""For those who write plugins: stand-ins, and a whole Elemta in memory."""

from elemta.testing.stand_ins import EPOCH as EPOCH
from elemta.testing.stand_ins import FakeClock as FakeClock
from elemta.testing.stand_ins import FakeContent as FakeContent
from elemta.testing.stand_ins import FakeDns as FakeDns
from elemta.testing.stand_ins import a_session as a_session
from elemta.testing.stand_ins import a_transaction as a_transaction
from elemta.testing.stand_ins import at_once as at_once
from elemta.testing.stand_ins import mailbox as mailbox
from elemta.testing.stand_ins import some_tools as some_tools
