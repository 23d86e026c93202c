"""Rewards from `gainsay serve`, over OpenRLHF's remote reward protocol (POST /get_reward)."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request

URL = os.environ.get("GAINSAY_REWARD_URL", "{{REWARD_URL}}").rstrip("/")


def rewards(texts, prompts=None, tries=5, seconds=180):
    """One reward a text: whole conversations, rendered with the chat template."""
    body = {"query": list(texts), "prompts": list(prompts or texts), "labels": [""] * len(texts)}
    headers = {"Content-Type": "application/json"}
    if os.environ.get("GAINSAY_API_KEY"):
        headers["Authorization"] = "Bearer " + os.environ["GAINSAY_API_KEY"]
    request = urllib.request.Request(URL + "/get_reward", json.dumps(body).encode(), headers)
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                values = json.load(reply)["rewards"]
            break
        except urllib.error.HTTPError as error:
            # The server's own words; only a busy or failing server is asked again.
            if attempt + 1 == tries or (error.code < 500 and error.code != 429):
                raise RuntimeError(f"{URL}: {error.code}: {error.read().decode(errors='replace')}") from error
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            # It cannot be reached, hung up, took too long, or its answer broke off.
            if attempt + 1 == tries:
                reason = getattr(error, "reason", None) or repr(error)
                raise RuntimeError(f"{URL}: {reason}; start it: gainsay serve --reward reward_model") from error
        time.sleep(2**attempt / 2)
    if len(values) != len(texts):
        raise RuntimeError(f"{URL}: {len(values)} rewards for {len(texts)} texts")
    return [float(value) for value in values]
