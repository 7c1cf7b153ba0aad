"""What is remembered over restarts: rows in memory, and a file behind them."""

from elemta.ledger.books import LONGEST as LONGEST
from elemta.ledger.books import Book as Book
from elemta.ledger.books import Row as Row
from elemta.ledger.books import short as short
from elemta.ledger.exchange import Exchange as Exchange
from elemta.ledger.keeper import Keeper as Keeper
from elemta.ledger.ledger import FILE as FILE
from elemta.ledger.ledger import Ledger as Ledger
