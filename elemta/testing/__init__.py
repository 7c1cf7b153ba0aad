"""For those who write plugins: stand-ins, and a whole Elemta in memory. See docs/plugins.md."""

from elemta.testing.hosts import Host as Host
from elemta.testing.hosts import Internet as Internet
from elemta.testing.hosts import Taken as Taken
from elemta.testing.running import CONFIG as CONFIG
from elemta.testing.running import STRANGER as STRANGER
from elemta.testing.running import TRUSTED as TRUSTED
from elemta.testing.running import Elemta as Elemta
from elemta.testing.running import PluginFailedError as PluginFailedError
from elemta.testing.running import on_virtual_time as on_virtual_time
from elemta.testing.running import running as running
from elemta.testing.stand_ins import EPOCH as EPOCH
from elemta.testing.stand_ins import FakeBody as FakeBody
from elemta.testing.stand_ins import FakeClock as FakeClock
from elemta.testing.stand_ins import FakeContent as FakeContent
from elemta.testing.stand_ins import FakeDns as FakeDns
from elemta.testing.stand_ins import a_letter as a_letter
from elemta.testing.stand_ins import a_session as a_session
from elemta.testing.stand_ins import a_transaction as a_transaction
from elemta.testing.stand_ins import at_once as at_once
from elemta.testing.stand_ins import mailbox as mailbox
from elemta.testing.stand_ins import some_tools as some_tools
from elemta.testing.talking import Client as Client
from elemta.testing.talking import HungUpError as HungUpError
