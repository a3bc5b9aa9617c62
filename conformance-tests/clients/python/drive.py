"""Drives the Python SDK's client: the first line of input says where to connect, each other is a tool call.

Answers with one line each: first what the client learnt of the server, then what it made of each call.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


def say(thing):
    print(json.dumps(thing), flush=True)


async def call(client, request):
    steps = []

    async def step(done, total, message):
        steps.append({"done": done, "total": total, "message": message})

    try:
        result = await client.call_tool(
            request["tool"],
            request["arguments"],
            progress_callback=step if request["progress"] else None,
        )
    except Exception as error:
        return {"thrown": f"{type(error).__name__}: {error}"}
    return {
        "failed": bool(result.is_error),
        "structured": result.structured_content,
        "content": [block.model_dump(mode="json", exclude_none=True) for block in result.content],
        "steps": steps,
    }


async def main(target):
    if "url" in target:
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {target['key']}"}, timeout=60)
        server = streamable_http_client(target["url"], http_client=http)
    else:
        server = StdioServerParameters(
            command=target["command"], args=target["args"], env=target["variables"]
        )
    async with Client(server, mode=target["mode"]) as client:
        tools = (await client.list_tools()).tools
        prompts = {}
        for prompt in (await client.list_prompts()).prompts:
            got = await client.get_prompt(prompt.name)
            prompts[prompt.name] = "".join(message.content.text for message in got.messages)
        say(
            {
                "protocol": client.protocol_version,
                "instructions": client.instructions,
                "prompts": prompts,
                "tools": [tool.name for tool in tools],
                "without_output_schema": [tool.name for tool in tools if not tool.output_schema],
            }
        )
        lines = asyncio.get_running_loop()
        while line := await lines.run_in_executor(None, sys.stdin.readline):
            say(await call(client, json.loads(line)))


asyncio.run(main(json.loads(sys.stdin.readline())))
