"""The ledger's tables and every statement run on them, by what they are about.

Events, entries and chain batches are only ever added to (triggers refuse anything else, see migration 0003); limits,
spend, funds and balances are running figures that can be rebuilt from them. No decision is taken here.
"""

from ledger.store.chain_rows import *
from ledger.store.commission_rows import *
from ledger.store.document_rows import *
from ledger.store.event_rows import *
from ledger.store.finding_rows import *
from ledger.store.fund_rows import *
from ledger.store.notice_rows import *
from ledger.store.order_rows import *
from ledger.store.report_rows import *
from ledger.store.statements import *
from ledger.store.tables import *
