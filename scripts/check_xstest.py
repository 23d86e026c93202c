#!/usr/bin/env python3
"""The pages of an app that holds XSTest's two annotators: scripts/check-data starts it.

    GAINSAY_ADMIN_SECRET=... python3 scripts/check_xstest.py http://127.0.0.1:PORT
"""

import http.cookiejar
import os
import re
import sys
import urllib.parse
import urllib.request

base = sys.argv[1]
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def page(path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    with browser.open(base + path, data) as answer:
        return answer.read().decode()


def hidden(text, name):
    return re.search(f'name="{name}" value="([^"]*)"', text).group(1)


page("/admin/sign-in", secret=os.environ["GAINSAY_ADMIN_SECRET"])
plain = re.sub(r"<[^>]+>", "", page("/admin"))
for said in ["Cohen's kappa, annotation_1 and annotation_20.939 97 % equal of 1750", "61open disagreements0 decided"]:
    assert said in plain, f"the dashboard does not say `{said}`: {plain}"

# The queue is those 61, each with two different labels; the admin's decision takes one off.
for left in range(61, 58, -1):
    text = page("/admin/disagreements")
    assert f"{left} open, {61 - left} decided." in text, re.sub(r"<[^>]+>", " ", text)[:300]
    labels = re.findall(r"<td>annotation_[12]</td><td>([^<]+)</td>", text)
    assert len(labels) == 2 and labels[0] != labels[1], labels
    page("/admin/disagreements", csrf=hidden(text, "csrf"), item=hidden(text, "item"), decision=labels[0], why="check")
print("XSTest: kappa 0.939 on the dashboard, 61 disagreements in the queue")
