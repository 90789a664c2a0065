"""Which visitors say that they are programs, and which do not."""

from __future__ import annotations

import pytest

from postbackd.core.bots import is_bot

BOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) Chrome/41 Mobile Safari/537.36 (compatible; Googlebot/2.1)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "AdsBot-Google (+http://www.google.com/adsbot.html)",
    "Mediapartners-Google",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "TelegramBot (like TwitterBot)",
    "WhatsApp/2.23.20.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    "python-requests/2.31.0",
    "Go-http-client/1.1",
    "Java/1.8.0_292",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.0; +https://openai.com/gptbot)",
    "Baiduspider+(+http://www.baidu.com/search/spider.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "some crawler",
    "bot",
]

PEOPLE = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 Version/17.1 Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus Build/PPR1) AppleWebKit/537.36 Chrome/99.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/99.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 13; SM-S901B) Instagram 300.0.0 Android",
    "Mozilla/5.0 (Linux; Android 12) [FBAN/FB4A;FBAV/400.0;] Chrome/110.0 Mobile",
    "curl/8.5.0",
    "Wget/1.21",
    "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "Dalvik/2.1.0 (Linux; U; Android 11; Robotics Phone)",
    "",
]


@pytest.mark.parametrize("user_agent", BOTS)
def test_a_program_that_introduces_itself_is_known(user_agent: str) -> None:
    assert is_bot(user_agent.encode())
    assert is_bot(user_agent.upper().encode())


@pytest.mark.parametrize("user_agent", PEOPLE)
def test_a_person_is_not_taken_for_one(user_agent: str) -> None:
    assert not is_bot(user_agent.encode())


@pytest.mark.parametrize("piece", [b"bot", b"cubot", b"crawl", b"spider", b"a", b"\xff", b"((((", b"java"])
def test_a_long_user_agent_takes_no_longer(piece: bytes) -> None:
    is_bot(piece * 100_000)
