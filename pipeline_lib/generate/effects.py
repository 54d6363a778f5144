"""How visitors behave, and what each variation changes in that. The ids are those of datafile.json."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Effect:
    """Factors on the share of visitors who purchase after exposure, and on the value of an order; 1 changes nothing.

    The effects of several experiments on one visitor multiply. The experiments are bucketed independently of each
    other, so each factor is also the true ratio to control within its experiment.
    """

    purchase_rate: float = 1.0
    order_value: float = 1.0


EFFECTS: Final[dict[tuple[str, str], Effect]] = {
    ("checkout_button", "control"): Effect(),
    ("checkout_button", "green"): Effect(purchase_rate=1.15),
    ("search_ranking", "control"): Effect(),
    ("search_ranking", "by_margin"): Effect(order_value=1.20),
    ("free_shipping", "control"): Effect(),
    ("free_shipping", "above_50"): Effect(purchase_rate=1.10, order_value=1.05),
    ("free_shipping", "always"): Effect(purchase_rate=1.25, order_value=0.90),
    ("aa_check", "a"): Effect(),
    ("aa_check", "a_again"): Effect(),
}
PURCHASE_RATE: Final = 0.10
SECOND_PURCHASE_RATE: Final = 0.10  # of those who purchased
CART_RATE: Final = 0.15  # of those who do not purchase; who purchases has always filled a cart
EARLY_VIEW_RATE: Final = 0.30  # seen before the exposure
EARLY_PURCHASE_RATE: Final = 0.01  # purchased before the exposure: not to be counted for any variation
ORDER_CENTS_MEDIAN: Final = 4000
ORDER_SIGMA: Final = 0.6  # of the logarithm

BROWSERS: Final[tuple[tuple[str, str], ...]] = (
    ("chrome", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"),
    ("safari", "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 Version/26.0 Safari/604.1"),
    ("firefox", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("edge", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0.0.0 Edg/142.0.0.0"),
)
COUNTRIES: Final = ("US", "DE", "IN", "BR", "JP")
BOTS: Final = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
)
