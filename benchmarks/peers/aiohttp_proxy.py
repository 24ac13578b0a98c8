"""A gateway as most would write it with aiohttp: look at the key and the model, send it on, pass on what comes.

python benchmarks/peers/aiohttp_proxy.py PORT UPSTREAM_PORT
"""

import json
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

KEYS = {"Bearer sk-bench-0123456789abcdef": "bench"}
UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", ClientSession)


async def completions(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") not in KEYS:
        return web.json_response({"error": {"message": "invalid key"}}, status=401)
    document = await request.json()
    if document.get("model") != "mock":
        return web.json_response({"error": {"message": "no such model"}}, status=404)
    url = f"{request.app[UPSTREAM]}{request.path}"
    async with request.app[SESSION].post(url, json=document, headers={"Authorization": "Bearer upstream"}) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(
        connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), json_serialize=json.dumps
    ) as client:
        app[SESSION] = client
        yield


def main() -> None:
    app = web.Application(client_max_size=16 << 20)
    app[UPSTREAM] = f"http://127.0.0.1:{sys.argv[2]}"
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/chat/completions", completions)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=4096)


if __name__ == "__main__":
    main()
