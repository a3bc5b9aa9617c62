"""Hosts that a sandbox is let out to: a private one over HTTPS, and one that anybody reads, which note what they are sent."""

import base64
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading

root, certificate, key = sys.argv[1:4]


def real():
    with open(f"{root}/real") as file:
        return file.read()


def basic(user):
    return "Basic " + base64.b64encode(f"{user}:{real()}".encode()).decode()


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, kind, body, more=()):
        self.send_response(status)
        for name, value in [("content-type", kind), ("content-length", str(len(body))), *more]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if (self.headers.get("transfer-encoding") or "") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        with open(f"{root}/seen", "a") as file:
            line = {"at": self.server.name, "path": self.path, "headers": dict(self.headers)}
            file.write(json.dumps(line) + "\n")
        if self.path.startswith("/large"):
            return self.say(200, "text/plain", b"x" * 2_000_000)
        if self.path.startswith("/away"):
            return self.say(302, "text/plain", b"", [("location", self.path.split("?to=")[1])])
        if self.path.startswith("/echo"):
            told = json.dumps(dict(self.headers)).encode()
            return self.say(200, "application/json", told)
        good = ["Bearer " + real(), basic("user"), basic("__token__")]
        if self.headers.get("authorization") not in good:
            return self.say(401, "text/plain", b"no\n", [("www-authenticate", 'Basic realm="private"')])
        if self.path.startswith("/app.git"):
            return self.git(body)
        files = {"/npm/@private%2fleft": "left.json", "/npm/left.tgz": "left.tgz",
                 "/simple/private-thing/": "index.html",
                 "/simple/private-thing/private_thing-1.0-py3-none-any.whl": "private_thing-1.0-py3-none-any.whl"}
        name = files.get(self.path)
        if name is None:
            return self.say(200, "text/plain", b"welcome\n")
        with open(f"{root}/{name}", "rb") as file:
            content = file.read().replace(b"PLACE", self.server.place.encode())
        kind = {"json": "application/json", "html": "text/html"}.get(name.rsplit(".")[-1], "application/octet-stream")
        self.say(200, kind, content)

    def git(self, body):
        path, _, query = self.path.partition("?")
        env = dict(os.environ, GIT_PROJECT_ROOT=root, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query,
                   REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("content-type") or "",
                   HTTP_CONTENT_ENCODING=self.headers.get("content-encoding") or "", CONTENT_LENGTH=str(len(body)),
                   GIT_PROTOCOL=self.headers.get("git-protocol") or "", REMOTE_USER="user")
        out = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(fields.pop("Status", "200")[:3])
        self.say(status, fields.pop("Content-Type", "text/plain"), content, fields.items())

    do_GET = do_POST = do_PUT = serve


def start(name, address, secured, host=None):
    server = http.server.ThreadingHTTPServer((address, 0), Host)
    server.name, server.place = name, f"{host or address}:{server.server_port}"
    if secured:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.place


places = {"private": start("private", "127.0.0.2", True), "other": start("other", "127.0.0.3", True),
          "plain": start("plain", "127.0.0.3", False), "near": start("near", "127.0.0.1", False),
          "named": start("private", "127.0.0.1", True, "localhost"),
          "unlisted": start("unlisted", "127.0.0.4", False)}
print(json.dumps(places), flush=True)
sys.stdin.read()
