"""Visitors that say they are programs: crawlers, link previews, monitors, headless browsers.

Their clicks are kept and sent on like any other, and marked.  The list names only what introduces itself, by words
that stand in no browser's user agent; it guesses nothing.  Programs with which people try a link out (curl, wget) are
not on it.
"""

from __future__ import annotations

import re

_BOT = re.compile(
    rb"(?<!cu)bot(?:[/;)]|$|(?<![a-z]bot)(?![a-z]))|crawl(?:er|ing)|(?<![a-z])spider|slurp"  # Cubot makes telephones
    rb"|facebookexternalhit|facebookcatalog|meta-external|whatsapp/|telegrambot|skypeuripreview"
    rb"|slackbot|slack-imgproxy|embedly|linkpreview|google-inspectiontool|mediapartners-google|adsbot|apis-google"
    rb"|google-read-aloud|feedfetcher|bingpreview|baiduspider|duckduckgo-favicons"
    rb"|headlesschrome|phantomjs|puppeteer|playwright|chrome-lighthouse|pagespeed"
    rb"|uptimerobot|pingdom|statuscake|site24x7|datadog|newrelicpinger|zabbix"
    rb"|python-requests|python-urllib3|aiohttp/|scrapy|go-http-client|(?<![a-z])java/|libwww-perl"
    rb"|masscan|zgrab|nuclei|censysinspect|netcraft|ahrefs|semrush|dataforseo|gptbot|claudebot",
)

LONGEST_USER_AGENT = 512
"""Bytes of a user agent that are looked at; whoever introduces himself does it early."""


def is_bot(user_agent: bytes) -> bool:
    """Whether a user agent says that it is a program."""
    return _BOT.search(user_agent[:LONGEST_USER_AGENT].lower()) is not None
