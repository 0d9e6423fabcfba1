"""What the generated shop sells, to whom and where: the raw material of `generate.py`.

Names are chosen to be awkward in the ways that real ones are: umlauts, apostrophes, scripts of
which one letter is one column wide and others two, quotes and line breaks. Not here: how they
are combined.
"""

from __future__ import annotations

FIRST_NAMES = (
    "Anna", "Björn", "Chloé", "David", "Eva", "Farid", "Grace", "Hiro", "Inés", "Jürgen",
    "Katarzyna", "Liam", "Mia", "Noah", "Olga", "Peter",
)  # fmt: skip
LAST_NAMES = (
    "Andersson", "Brown", "Costa", "Dvořák", "Evans", "Fischer", "García", "Huang", "Ivanova",
    "Jansen", "Kowalski", "López", "Müller", "Nguyen", "O'Neill", "Schröder",
)  # fmt: skip

# Street, city, postal code, country, state, currency, tax in percent.
PLACES = (
    ("Hauptstraße", "Berlin", "10115", "DE", None, "EUR", 19),
    ("Königsallee", "Düsseldorf", "40212", "DE", None, "EUR", 19),
    ("Leopoldstraße", "München", "80802", "DE", "Bayern", "EUR", 19),
    ("High Street", "Leeds", "LS1 4DY", "GB", None, "GBP", 20),
    ("King's Road", "London", "SW3 4UD", "GB", None, "GBP", 20),
    ("Rue de l'Église", "Paris", "75015", "FR", None, "EUR", 20),
    ("Calle Mayor", "Madrid", "28013", "ES", "Madrid", "EUR", 21),
    ("Via Roma", "Torino", "10121", "IT", "TO", "EUR", 22),
    ("Main Street", "Springfield", "62701", "US", "IL", "USD", 6),
    ("5th Avenue", "New York", "10018", "US", "NY", "USD", 9),
    ("Mission Street", "San Francisco", "94103", "US", "CA", "USD", 9),
    ("Storgatan", "Göteborg", "411 38", "SE", None, "SEK", 25),
    ("ul. Długa", "Kraków", "31-146", "PL", None, "PLN", 23),
    ("Bahnhofstrasse", "Zürich", "8001", "CH", "ZH", "CHF", 8),
    ("Queen Street West", "Toronto", "M5V 2A2", "CA", "ON", "CAD", 13),
    ("中央通り", "東京", "104-0061", "JP", "東京都", "USD", 10),
)

ADJECTIVES = (
    "White", "Red", "Blue", "Oak", "Vintage", "Mini", "Large", "Linen", "Ceramic", "Glass", "Wool",
    "Brass", "Folding", "Hand-made", "Café", "Set of 6",
)  # fmt: skip
NOUNS = (
    "Lantern", "Mug", "Tea Towel", "Cushion", "Candle", "Bowl", "Lunch Box", "Picture Frame",
    "Clock", "Blanket", "Doormat", 'Shelf 24"', "Watering Can", "Notebook", "Teapot", "T-Light Holder",
)  # fmt: skip

# Several of these end in 0 or 00 cents, which JSON then shows as 12.5 or 12.
PRICES_CENTS = (
    85, 125, 165, 210, 255, 295, 339, 400, 425, 495, 595, 650, 795, 850, 999, 1000, 1050, 1275,
    1495, 1695, 1999, 2495, 2500, 3250, 3999, 4995, 6000, 7450, 8999, 12900, 19950, 34900,
)  # fmt: skip
QUANTITIES = (1, 1, 1, 1, 2, 2, 3, 12)
SHIPPING_CENTS = (0, 0, 490, 490, 499, 595, 1000, 1250)

STATUSES = (
    "delivered", "delivered", "delivered", "delivered", "delivered", "delivered", "delivered",
    "shipped", "shipped", "shipped", "paid", "paid", "paid", "pending", "cancelled", "refunded",
)  # fmt: skip

TAGS: tuple[tuple[str, ...], ...] = (
    ("vip",), ("wholesale",), ("gift", "express"), ("newsletter",), ("späti",),
    ("b2b", "net 30", "vip"),
)  # fmt: skip

NOTES = (
    "Please leave with a neighbour.",
    "Bitte bei Müller im 2. Stock klingeln – danke!",
    'Engrave "Für Oma" on the lid',
    "生日快乐！请包装成礼物。",
    "Happy birthday 🎂🎉",
    "Two lines:\nback door,\nnot the front",
    "C:\\temp\\ and a tab:\there",
    "L'été à la plage, 50 % de réduction ?",
)
