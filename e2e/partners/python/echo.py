"""A gRPC server or client of Python's grpcio. `echo.py serve PORT`; `echo.py call HOST:PORT`.

Messages are bytes as they are. A server says how each call ended; a client makes every kind of call, checks what it gets, says
`N checks` and ends with 0 if all hold.
"""

import asyncio
import sys

import grpc

SERVICE = "partners.Echo"
# What percent-encoding is for, and what looks like it is encoded already.
MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608 %41 %"
# What base64 has and text does not.
BINARY = bytes(range(256))


class Server(grpc.GenericRpcHandler):
    def service(self, details):
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fail": grpc.stream_stream_rpc_method_handler(self.fail),
            "Sleep": grpc.unary_stream_rpc_method_handler(self.sleep),
        }
        service, _, method = details.method.lstrip("/").partition("/")
        return kinds.get(method) if service == SERVICE else None

    async def _metadata(self, context):
        """All that was sent under m-, in the head and in the trailers."""
        sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("m-")]
        await context.send_initial_metadata(sent)
        context.set_trailing_metadata(sent)

    async def unary(self, request, context):
        await self._metadata(context)
        return request

    async def up(self, requests, context):
        sizes = [len(one) async for one in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    async def down(self, request, context):
        for n in range(int(request)):
            yield str(n).encode()

    async def both(self, requests, context):
        await self._metadata(context)
        async for one in requests:
            yield one

    async def fail(self, requests, context):
        """Ends while its caller still sends; after so many messages as the caller's metadata say."""
        said = dict(context.invocation_metadata())
        for n in range(int(said.get("x-after", 0))):
            yield str(n).encode()
        context.set_trailing_metadata([("grpc-status-details-bin", BINARY)])
        await context.abort(grpc.StatusCode.ABORTED, MESSAGE)

    async def sleep(self, request, context):
        """One message, with the time that is left; then none until its caller has gone."""
        left = context.time_remaining()
        try:
            # No `yield`: a generator that is closed between two messages hears of no cancellation.
            await context.write(b"" if left is None else str(left).encode())
            await asyncio.sleep(60)
            print("sleep: nobody cancelled it", flush=True)
        except asyncio.CancelledError:
            print("sleep: cancelled" if left is None else "sleep: its deadline has passed", flush=True)
            raise


async def serve(port):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Server()])
    server.add_insecure_port(f"0.0.0.0:{port}")
    await server.start()
    print("serves", flush=True)
    await server.wait_for_termination()


def joined(metadata):
    """What is under m-; values of one name may come in one line (RFC 9110, 5.3)."""
    values = {}
    for key, value in metadata:
        if key.startswith("m-"):
            values.setdefault(key, []).append(value)
    return {key: all if key.endswith("-bin") else ", ".join(all) for key, all in sorted(values.items())}


class Client:
    def __init__(self, channel):
        self.channel, self.checks = channel, 0

    def equal(self, what, got, expected):
        self.checks += 1
        if got != expected:
            sys.exit(f"{what}: {repr(got)[:2000]}, not {repr(expected)[:2000]}")

    def unary(self, method="Unary"):
        return self.channel.unary_unary(f"/{SERVICE}/{method}")

    async def failed(self, what, call, code, details=None):
        try:
            got = await call
        except grpc.aio.AioRpcError as error:
            self.equal(what, error.code(), code)
            if details is not None:
                self.equal(f"{what}: message", error.details(), details)
            return error
        sys.exit(f"{what}: {got!r}, not {code}")

    async def metadata(self):
        sent = [("m-text", "a, b; c=\"d\""), ("m-twice", "one"), ("m-twice", "two"), ("m-empty", ""), ("m-some-bin", BINARY),
                ("m-some-bin", b"\0,\xff"), ("m-none-bin", b"")]
        sent += [(f"m-many-{n}", "v" * 20) for n in range(100)]
        call = self.unary()(b"metadata", metadata=sent, timeout=20)
        self.equal("unary", await call, b"metadata")
        for what, got in [("head", await call.initial_metadata()), ("trailers", await call.trailing_metadata())]:
            self.equal(f"metadata in the {what}", joined(got), joined(sent))

    async def kinds(self):
        self.equal("nothing", await self.unary()(b"", timeout=20), b"")
        large = bytes(3_000_000)
        self.equal("large", len(await self.unary()(large, timeout=20)), len(large))

        async def pieces():
            for n in range(100):
                yield bytes(n * 100)

        up = self.channel.stream_unary(f"/{SERVICE}/Up")
        self.equal("up", await up(pieces(), timeout=20), b"100 495000")
        down = self.channel.unary_stream(f"/{SERVICE}/Down")(b"200", timeout=20)
        self.equal("down", [int(one) async for one in down], list(range(200)))
        self.equal("down: none", [one async for one in self.channel.unary_stream(f"/{SERVICE}/Down")(b"0", timeout=20)], [])
        both = self.channel.stream_stream(f"/{SERVICE}/Both")(timeout=20)
        for n in range(20):
            await both.write(bytes([n]) * (n * 1000))
            self.equal("both", await both.read(), bytes([n]) * (n * 1000))
        await both.done_writing()
        self.equal("both: its end", await both.read(), grpc.aio.EOF)
        self.equal("both: its code", await both.code(), grpc.StatusCode.OK)
        empty = self.channel.stream_stream(f"/{SERVICE}/Both")(timeout=20)
        await empty.done_writing()
        self.equal("empty stream", await empty.read(), grpc.aio.EOF)
        many = await asyncio.gather(*[self.unary()(str(n).encode(), timeout=20) for n in range(300)])
        self.equal("many at once", many, [str(n).encode() for n in range(300)])

    async def failures(self):
        for after in [0, 3]:
            call = self.channel.stream_stream(f"/{SERVICE}/Fail")(metadata=[("x-after", str(after))], timeout=20)
            # Its direction stays open: the server ends first.
            got = []

            async def read():
                async for one in call:
                    got.append(one)

            error = await self.failed(f"fail after {after}", read(), grpc.StatusCode.ABORTED, MESSAGE)
            self.equal("fail: messages before", len(got), after)
            self.equal("fail: details", dict(error.trailing_metadata()).get("grpc-status-details-bin"), BINARY)

        await self.failed("no such method", self.unary("None")(b"", timeout=20), grpc.StatusCode.UNIMPLEMENTED)

    async def given_up(self):
        sleep = self.channel.unary_stream(f"/{SERVICE}/Sleep")
        call = sleep(b"", timeout=1.5)
        left = float(await call.read())
        self.equal(f"the deadline is told: {left}", 0 < left < 5, True)
        await self.failed("deadline", call.read(), grpc.StatusCode.DEADLINE_EXCEEDED)
        call = sleep(b"")
        self.equal("no deadline", await call.read(), b"")
        call.cancel()
        self.equal("cancelled", await call.code(), grpc.StatusCode.CANCELLED)
        # The channel is as good as before.
        self.equal("after that", await self.unary()(b"again", timeout=20), b"again")


async def call(target):
    async with grpc.aio.insecure_channel(target) as channel:
        client = Client(channel)
        for part in [client.metadata, client.kinds, client.failures, client.given_up]:
            await part()
        print(f"{client.checks} checks")


if __name__ == "__main__":
    asyncio.run({"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:]))
