"""The Python SDK's client as a program that signs in: the first line of input says where to connect.

Says the address that its user has to open, reads the one that the user was sent back to, and then tells what a tool answers.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

BACK = "http://localhost:38119/callback"


class Storage:
    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def say(thing):
    print(json.dumps(thing), flush=True)


async def opens(url):
    say({"open": url})


async def came_back():
    back = parse_qs(urlsplit(json.loads(sys.stdin.readline())["back"]).query)
    return AuthorizationCodeResult(code=back["code"][0], state=back["state"][0], iss=back["iss"][0])


async def main(target):
    said = OAuthClientMetadata(client_name="conformance", redirect_uris=[BACK])
    auth = OAuthClientProvider(target["url"], said, Storage(), opens, came_back)
    http = httpx2.AsyncClient(auth=auth, timeout=60)
    async with Client(streamable_http_client(target["url"], http_client=http)) as client:
        result = await client.call_tool("app_describe", {})
        say({"told": "".join(block.text for block in result.content)})


asyncio.run(main(json.loads(sys.stdin.readline())))
