"""What the tests share: a print shop, pictures, and the variables of a service."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from acme_images.connections import PrintShop

pytest_plugins = ["celeriac.testing.fixtures"]


class Shop:
    """A print shop that makes one order for each key, and is busy for its first answers if told so."""

    def __init__(self) -> None:
        self.orders: dict[str, str] = {}
        self.asked = 0
        self.busy = 0
        self.refuses = False
        shop = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.asked += 1
                key = self.headers["Idempotency-Key"]
                if self.headers["Authorization"] != "Bearer t0p":
                    self.answer(401, {"error": "wrong token"})
                elif shop.busy:
                    shop.busy -= 1
                    shop.orders.setdefault(key, f"o-{len(shop.orders) + 1}")  # it did order, and then failed
                    self.answer(503, {"error": "busy"}, **{"Retry-After": "0"})
                elif shop.refuses or json.loads(body)["count"] > 100:
                    self.answer(422, {"error": "too many"})
                else:
                    self.answer(201, {"order": shop.orders.setdefault(key, f"o-{len(shop.orders) + 1}")})

            def answer(self, status: int, body: dict[str, str], **headers: str) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def connections(self) -> Mapping[str, PrintShop]:
        """What a task in memory gets."""
        return {"corner": PrintShop(url=self.url, token="t0p")}


@pytest.fixture(scope="session")
def running_shop() -> Iterator[Shop]:
    shop = Shop()
    thread = threading.Thread(target=shop.server.serve_forever)
    thread.start()
    yield shop
    shop.server.shutdown()
    shop.server.server_close()
    thread.join()


@pytest.fixture
def shop(running_shop: Shop) -> Shop:
    """A shop without orders."""
    running_shop.orders.clear()
    running_shop.asked, running_shop.busy, running_shop.refuses = 0, 0, False
    return running_shop


@pytest.fixture(scope="session")
def celeriac_environment(running_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    connections = tmp_path_factory.mktemp("connections") / "connections.toml"
    connections.write_text(
        f'[corner]\nkind = "print_shop"\nurl = "{running_shop.url}"\ntoken_env = "ACME_SHOP_TOKEN"\n'
    )
    return {
        "CELERIAC_CONTRACTS": "",  # no other kinds than those of installed packages
        "CELERIAC_LEASE_S": "4",  # a lost worker is noticed sooner
        "CELERIAC_CONNECTIONS_FILE": str(connections),
        "ACME_SHOP_TOKEN": "t0p",
    }


@pytest.fixture(scope="session")
def holiday() -> bytes:
    """A ZIP with three pictures and a text."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, size in {"beach.png": (400, 200), "a/../hill.png": (50, 100), "town.png": (640, 640)}.items():
            picture = io.BytesIO()
            Image.new("RGB", size, "navy").save(picture, "PNG")
            archive.writestr(name, picture.getvalue())
        archive.writestr("readme.txt", "not a picture")
    return content.getvalue()
