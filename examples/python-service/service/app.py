"""Counts words. A service with nothing but what Python has: it answers HTTP at $PORT, and keeps what it counts in rows."""

import http.client
import http.server
import json
import os
import socket


class App(http.client.HTTPConnection):
    """The app itself: its rows, files and functions, with its own rights. No token is needed on this socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(os.environ["STEADING_SOCKET"])


def ask(method, path, value=None):
    app = App("app.internal")
    app.request(method, path, value and json.dumps(value), {"content-type": "application/json"})
    answer = app.getresponse()
    body = json.loads(answer.read() or b"null")
    if answer.status >= 400:
        raise RuntimeError(body["message"])
    return body


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            return self.say(200, {"well": True})
        if self.path != "/api/counts":
            return self.say(404, {"message": "there is nothing here"})
        self.say(200, ask("GET", "/_/db/counts?order=-created_at&limit=20"))

    def do_POST(self):
        # Nobody but the platform sets this header: it says who asks.
        caller = json.loads(self.headers["steading-caller"])
        if self.path != "/api/counts" or caller["kind"] != "user":
            return self.say(403, {"message": "sign in first"})
        length = min(int(self.headers.get("content-length", 0)), 100_000)
        text = json.loads(self.rfile.read(length))["text"]
        row = {"text": text[:200], "words": len(text.split()), "author": caller["id"]}
        print("counted", row["words"], "words")
        self.say(201, ask("POST", "/_/db/counts", row))

    def say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
