"""A customer: speaks HTTP as a browser does, cookies and CSRF token included."""

import json
import re
import time
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

#: How long one request may take, in seconds. Publishing has a deadline of its own below it.
TIMEOUT = 20.0


class UnexpectedAnswer(Exception):
    """The site answered something else than it should."""


@dataclass(frozen=True)
class Placed:
    """An order that the site took, and how long its answer took."""

    order: int
    milliseconds: float


class Customer:
    """Reads pages and places orders."""

    def __init__(self, address: str) -> None:
        self._host = urlsplit(address).netloc
        self._cookies = SimpleCookie[str]()

    def get_json(self, path: str) -> Any:
        """One of the site's JSON pages."""
        _, body = self._request("GET", path)
        return json.loads(body)

    def place_order(self, name: str, email: str, basket: dict[str, int], jam_printer: bool = False) -> Placed:
        """Fill in the order form and send it off."""
        _, page = self._request("GET", "/order/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if token is None:
            raise UnexpectedAnswer("the order form has no CSRF token")
        labels = re.findall(r'<label for="id_(product_\d+)">([^<]+)', page)
        fields = {unescape(label).strip(): field for field, label in labels}
        form = {
            "csrfmiddlewaretoken": token[1],
            "customer": name,
            "email": email,
            **{fields[product]: str(quantity) for product, quantity in basket.items()},
            **({"jam_printer": "on"} if jam_printer else {}),
        }
        started = time.perf_counter()
        answer, _ = self._request("POST", "/order/", urlencode(form))
        took = (time.perf_counter() - started) * 1000
        place = re.search(r"/orders/(\d+)/", answer.headers.get("Location", ""))
        if answer.status != 302 or place is None:
            raise UnexpectedAnswer(f"the order was answered with {answer.status}")
        return Placed(order=int(place[1]), milliseconds=took)

    def _request(self, method: str, path: str, body: str | None = None) -> tuple[HTTPResponse, str]:
        headers = {"Cookie": "; ".join(f"{key}={it.value}" for key, it in self._cookies.items())}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = HTTPConnection(self._host, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise UnexpectedAnswer(f"{method} {path} was answered with {answer.status}")
        for cookie in answer.headers.get_all("Set-Cookie", []):
            self._cookies.load(cookie)
        return answer, text
