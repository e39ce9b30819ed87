"""Finance's pages in their first form: the trial balance, the journal, an advertiser's month, invoices. All are read.

Who may see them is the API's to say: an operation that a role may not call leaves no page.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from bidder_api.console.asking import Asking, quoted
from bidder_api.console.pages import Visit
from ledger.command import DocumentPage
from ledger.reports import JournalTransaction, Statement, TransactionPage, TrialBalance

FILTERS = ("account", "period")


class FinancePages:
    """Finance's pages.

    Args:
        asking: the way to what whoever is signed in may see.
        render: returns a page, given its template, the visit and what it shows.
    """

    def __init__(self, asking: Callable[[Visit], Asking], render: Callable[..., Awaitable[Response]]) -> None:
        self._asking = asking
        self._render = render

    async def show_trial_balance(self, request: Request, visit: Visit) -> Response:
        """Show every account's balance, and that debits less credits are nothing."""
        asking = self._asking(visit)
        balance = await asking.get("/v1/ledger/trial-balance", TrialBalance)
        return await self._show("trial_balance.html", visit, asking, "trial_balance", balance=balance)

    async def list_transactions(self, request: Request, visit: Visit) -> Response:
        """Show a page of the journal, of an account's or a month's where that is asked for."""
        asking = self._asking(visit)
        filters = {name: request.query_params[name] for name in FILTERS if request.query_params.get(name)}
        token = request.query_params.get("page_token")
        asked = filters | ({"page_token": token} if token else {})
        page = await asking.get("/v1/ledger/transactions", TransactionPage, asked)
        following = page.next_page_token and urlencode(filters | {"page_token": page.next_page_token})
        return await self._show(
            "transactions.html", visit, asking, "transactions", page=page, filters=filters, following=following
        )

    async def show_transaction(self, request: Request, visit: Visit) -> Response:
        """Show one transaction's postings."""
        asking = self._asking(visit)
        transaction_id = request.path_params["transaction_id"]
        found = await asking.get(f"/v1/ledger/transactions/{quoted(transaction_id)}", JournalTransaction)
        return await self._show("transaction.html", visit, asking, "transactions", transaction=found)

    async def show_statement(self, request: Request, visit: Visit) -> Response:
        """Show an advertiser's month, once both are named."""
        asking = self._asking(visit)
        asked = {name: request.query_params.get(name, "") for name in ("advertiser_id", "period")}
        statement: Statement | None = None
        if all(asked.values()):
            statement = await asking.get("/v1/ledger/statements", Statement, asked)
        return await self._show("statement.html", visit, asking, "statements", asked=asked, statement=statement)

    async def list_invoices(self, request: Request, visit: Visit) -> Response:
        """Show a page of invoices."""
        asking = self._asking(visit)
        token = request.query_params.get("page_token")
        page = await asking.get("/v1/ledger/invoices", DocumentPage, {"page_token": token} if token else None)
        following = page.next_page_token and urlencode({"page_token": page.next_page_token})
        return await self._show("invoices.html", visit, asking, "invoices", page=page, following=following)

    async def _show(self, template: str, visit: Visit, asking: Asking, nav: str, **shown: Any) -> Response:
        return await self._render(template, visit, nav=nav, commands=asking.commands, **shown)
