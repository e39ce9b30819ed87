"""Plants a fault into every process of a server that is started with this folder on PYTHONPATH."""

from ledger import billing


def take_in_another_order(purse: billing.Purse, period: str, amount_micros: int) -> object:
    """Charge the credit line before the money that was paid for."""
    from_credit = min(max(purse.credit_line_micros - purse.owed_micros, 0), amount_micros)
    from_promo = min(purse.promo_micros, amount_micros - from_credit)
    from_wallet = amount_micros - from_credit - from_promo
    purse.left_micros -= amount_micros
    purse.promo_micros -= from_promo
    purse.wallet_micros -= from_wallet
    purse.owed_micros += from_credit
    legs = (
        (billing.promo(purse.advertiser_id), from_promo),
        (purse.wallet_account, from_wallet),
        (billing.unbilled(purse.advertiser_id, period), from_credit),
    )
    for kind, (_, part) in enumerate(legs):
        purse.taken[kind] += part
    postings = [billing.Posting(account, billing.Side.DEBIT, part) for account, part in legs if part]
    return (*postings, billing.Posting(billing.REVENUE, billing.Side.CREDIT, amount_micros))


billing._take = take_in_another_order
