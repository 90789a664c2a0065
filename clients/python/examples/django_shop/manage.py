"""A shop of four pages in Django: it keeps the click id of its visitors and reports what they buy.

Run it beside `make run`, with the postback URL that `make run` prints (up to its question mark):

    pip install django postbackd-client
    POSTBACK_URL=http://127.0.0.1:8080/p/KEY python manage.py runserver 5000 --noreload

Then open http://127.0.0.1:5000/?click_id=ID with the id of a click, and buy the shoes.  README.md in the directory
above says how the tracker sends its visitors here.
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
