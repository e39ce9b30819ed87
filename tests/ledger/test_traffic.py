"""Robots that say so are told from browsers, and from a telephone called Cubot."""

import pytest

from ledger.traffic import declares_robot

ROBOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0) Chrome/116.0 Safari/537.36",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Scrapy/2.11 (+https://scrapy.org)",
    "Mozilla/5.0 (compatible; Baiduspider/2.0)",
    "DuckDuckBot-Https/1.1",
    "AhrefsSiteAudit/6.1",
    "Mozilla/5.0 (compatible; Odin; +http://example.test/)",
    "Mozilla/5.0 (X11; Linux x86_64) Chrome/134.0 Safari/537.36 (Checkly, https://example.test)",
    "Thing/1.0 (contact: ops@example.org)",
    "something-webhooks/1.65",
    "RSS-Feed-Parser/1.0",
]
PEOPLE = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 9; CUBOT_NOTE_S) AppleWebKit/537.36 Chrome/96.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0 Safari/537.36",
    "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)",
    "Mozilla/5.0 (Linux; Android 10; K) Chrome/150.0 Mobile Safari/537.36 (Ecosia android@150.0.0.0)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/22B83 Instagram 350.0",
    "MyShop/4.2 CFNetwork/1498.700.2 Darwin/23.6.0",
    "okhttp/4.12.0",
    "python-httpx/0.28.1",
    "curl/8.5.0",
    "",
]


@pytest.mark.parametrize("user_agent", ROBOTS)
def test_a_declared_robot_is_one(user_agent: str) -> None:
    assert declares_robot(user_agent)


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_browsers_and_the_shops_own_server_are_not(user_agent: str) -> None:
    assert not declares_robot(user_agent)
