"""A service with nothing but what Python has: it tells what it is told, and does what its path says."""

import http.client
import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.parse
import urllib.request
import uuid

RUN = str(uuid.uuid4())
WORD = os.environ.get("WORD", "")


class Platform(http.client.HTTPConnection):
    """The app's own rows, files and functions."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.environ["STEADING_SOCKET"])


def platform(path, headers=None):
    connection = Platform("app.internal")
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        answer = getattr(self, url.path.split("/")[1].replace("-", "_") or "told", self.told)(url, query)
        if answer is not None:
            self.say(200, answer)

    def say(self, status, value, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(0 if status == 204 else len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def told(self, url, query):
        headers = {name.lower(): value for name, value in self.headers.items()}
        return {"path": self.path, "headers": headers, "word": WORD, "run": RUN}

    def write(self, url, query):
        with open("written", "a") as file:
            file.write("x")
        return {"run": RUN, "written": os.path.getsize("written")}

    def status(self, url, query):
        self.say(int(url.path.split("/")[2]), {})

    def die(self, url, query):
        os._exit(9)

    def die_later(self, url, query):
        threading.Timer(0.2, lambda: os._exit(9)).start()
        return {}

    def slow(self, url, query):
        print("slowly", flush=True)
        time.sleep(float(query["s"]))
        return {"word": WORD}

    def all(self, url, query):
        return platform("/_/db/notes")[1]

    def mine(self, url, query):
        as_caller = {"steading-request": self.headers["steading-request"], "steading-rights": "caller"}
        return platform("/_/db/notes", as_caller)[1]

    def others(self, url, query):
        return platform("/_/db/notes", {"steading-request": "req_another", "steading-rights": "caller"})[1]

    def platform(self, url, query):
        status, body = platform(query["path"])
        return {"status": status, "body": body}

    def head(self, url, query):
        ours = [("steading-fn-outcome", "threw"), ("access-control-allow-origin", "*"), ("x-own", "1")]
        self.say(200, {}, [*ours, ("strict-transport-security", "max-age=1")])

    def secret(self, url, query):
        print("it is " + os.environ["API_KEY"], flush=True)
        return {}

    def connect(self, url, query):
        host, port = query["to"].rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2).close()
        except OSError as error:
            return {"error": str(error)}
        return {}

    def fetch(self, url, query):
        proxies = {"http": os.environ["HTTP_PROXY"], "https": os.environ["HTTP_PROXY"]}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
        try:
            return {"body": opener.open(query["url"], timeout=10).read().decode(errors="replace")[:200]}
        except OSError as error:
            return {"error": str(error)}

    def seen(self, url, query):
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
        return {"processes": len(processes), "uid": os.getuid(), "env": dict(os.environ), "root": os.listdir("/")}

    def log_message(self, *_):
        pass


def end(*_):
    print("told to end", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
print("it begins", flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
