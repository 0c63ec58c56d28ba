"""The faults of scripts/chaos, each a coroutine that makes, holds and undoes it; what it returns says what it was."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from chaos_pair import Certificates, Clock, Disk, Pair
from chaos_schedule import Step

from tests.data.http1.smuggling.requests import ACCEPTED, BROKEN_BODIES, REFUSED
from tests.support.fault_proxy import Fault, FaultProxy, dribble

NOISE_SECONDS = 20.0
NOISE_ROWS = 40
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


@dataclass(kw_only=True)
class Scene:
    """What faults may touch. Proxies are by name of the bridge."""

    pair: Pair
    disk: Disk
    clocks: Mapping[str, Clock]
    certificates: Certificates
    to_plane: Mapping[str, FaultProxy]
    to_bridge: Mapping[str, FaultProxy]
    to_upstream: FaultProxy
    rotate: Callable[[], Awaitable[str]]
    # Inputs of noise, and those that were not answered, or ended, in time.
    noise: int = 0
    hung: list[str] = field(default_factory=list)
    # What a swap of certificates did that it should not.
    tls_problems: list[str] = field(default_factory=list)


async def kill_credentiald(scene: Scene, step: Step, dice: random.Random) -> str:
    await asyncio.to_thread(scene.pair.kill_plane)
    await asyncio.sleep(step.seconds)
    await asyncio.to_thread(scene.pair.revive_plane)
    return "killed"


async def kill_bridge(scene: Scene, step: Step, dice: random.Random) -> str:
    name = dice.choice(sorted(scene.pair.bridges))
    await asyncio.to_thread(scene.pair.kill_bridge, name)
    await asyncio.sleep(step.seconds)
    await asyncio.to_thread(scene.pair.start_bridge, name)
    return name


async def drain_bridge(scene: Scene, step: Step, dice: random.Random) -> str:
    name = dice.choice(sorted(scene.pair.bridges))
    await asyncio.to_thread(scene.pair.drain_bridge, name)
    return name


async def stop_credentiald(scene: Scene, step: Step, dice: random.Random) -> str:
    return await _stopped(scene, scene.pair.plane, step.seconds)


async def stop_bridge(scene: Scene, step: Step, dice: random.Random) -> str:
    name = dice.choice(sorted(scene.pair.bridges))
    return f"{name} " + await _stopped(scene, scene.pair.bridges[name], step.seconds)


async def _stopped(scene: Scene, running: object, seconds: float) -> str:
    scene.pair.signal(running, signal.SIGSTOP)  # type: ignore[arg-type]
    try:
        await asyncio.sleep(seconds)
    finally:
        scene.pair.signal(running, signal.SIGCONT)  # type: ignore[arg-type]
    return f"for {seconds:.1f} s"


async def slow_link(scene: Scene, step: Step, dice: random.Random) -> str:
    fault = Fault(delay_seconds=dice.uniform(0.02, 0.4), bytes_a_second=dice.choice((None, 20_000.0, 200_000.0)))
    return await _linked(_of_a_bridge(scene.to_plane, dice), fault, fault, step.seconds)


async def silent_link(scene: Scene, step: Step, dice: random.Random) -> str:
    silent = Fault(silent=True)
    up, down = dice.choice(((silent, silent), (silent, Fault()), (Fault(), silent)))
    return await _linked(_of_a_bridge(scene.to_plane, dice), up, down, step.seconds)


async def broken_link(scene: Scene, step: Step, dice: random.Random) -> str:
    proxy = _of_a_bridge(scene.to_plane, dice)
    return await _linked(proxy, _broken(dice), dice.choice((Fault(), _broken(dice))), step.seconds, reset=True)


async def corrupt_link(scene: Scene, step: Step, dice: random.Random) -> str:
    faults = [Fault(corrupt_at=dice.choice((dice.randrange(100), dice.randrange(20_000)))) for _ in range(2)]
    return await _linked(_of_a_bridge(scene.to_plane, dice), *faults, step.seconds, reset=True)


async def refused_link(scene: Scene, step: Step, dice: random.Random) -> str:
    proxy = _of_a_bridge(scene.to_plane, dice)
    proxy.refuse()
    proxy.reset_all()
    await asyncio.sleep(step.seconds)
    proxy.heal()
    return "refused"


async def client_link(scene: Scene, step: Step, dice: random.Random) -> str:
    return await _linked(_of_a_bridge(scene.to_bridge, dice), _any(dice), _any(dice), step.seconds)


async def upstream_link(scene: Scene, step: Step, dice: random.Random) -> str:
    return await _linked(scene.to_upstream, _any(dice), _any(dice), step.seconds)


async def full_disk(scene: Scene, step: Step, dice: random.Random) -> str:
    from chaos_pair import tree

    await asyncio.to_thread(scene.disk.fill, tree(scene.pair.plane.process.pid))
    try:
        await asyncio.sleep(step.seconds)
    finally:
        await asyncio.to_thread(scene.disk.free)
    return scene.disk.means


async def clock_forward(scene: Scene, step: Step, dice: random.Random) -> str:
    return await _shifted(scene, step, dice, 1)


async def clock_back(scene: Scene, step: Step, dice: random.Random) -> str:
    return await _shifted(scene, step, dice, -1)


async def _shifted(scene: Scene, step: Step, dice: random.Random, sign: int) -> str:
    name, minutes = dice.choice(sorted(scene.clocks)), sign * dice.uniform(0.5, 10.0)
    scene.clocks[name].shift(minutes * 60)
    try:
        await asyncio.sleep(step.seconds)
    finally:
        scene.clocks[name].shift(0.0)
    return f"{name} by {minutes:+.1f} minutes"


async def broken_tls(scene: Scene, step: Step, dice: random.Random) -> str:
    done = scene.certificates.damage(dice)
    try:
        await asyncio.sleep(step.seconds)
        problem = await asyncio.to_thread(_handshake, scene)
        if problem:
            scene.tls_problems.append(f"{done}: {problem}")
        for proxy in scene.to_plane.values():
            proxy.reset_all()
    finally:
        scene.certificates.renew()
    return done


def _client_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.set_alpn_protocols(["h2"])
    return context


def _handshake(scene: Scene) -> str:
    """What is wrong with a connection by TLS to credentiald; empty for nothing."""
    context = _client_context(scene.certificates)
    host, _, port = scene.pair.plane_address().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except OSError as problem:
        return f"{type(problem).__name__}: {problem}"
    return ""


async def noise(scene: Scene, step: Step, dice: random.Random) -> str:
    rows = [row.data for row in (*REFUSED, *ACCEPTED, *BROKEN_BODIES)]
    bridge, plane = scene.pair.bridge_address(dice.choice(sorted(scene.pair.bridges))), scene.pair.plane_address()
    inputs: list[tuple[str, bytes, ssl.SSLContext | None]]
    inputs = [(bridge, data, None) for data in dice.sample(rows, min(NOISE_ROWS, len(rows)))]
    tls = _client_context(scene.certificates)
    for _ in range(NOISE_ROWS // 2):
        frames = _PREFACE + _SETTINGS if dice.random() < 0.7 else b""
        inputs.append((plane, frames + dice.randbytes(dice.randrange(1, 400)), dice.choice((tls, tls, None))))
    await asyncio.gather(*(_send_noise(scene, *one) for one in inputs))
    return f"{len(inputs)} inputs"


async def _send_noise(scene: Scene, address: str, data: bytes, tls: ssl.SSLContext | None) -> None:
    """Send it, end our side, and see that the other side ends, too."""
    scene.noise += 1
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(NOISE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
            try:
                writer.write(data)
                if writer.can_write_eof():
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                elif tls is not None:
                    # TLS cannot end one side; what a peer says that sends nothing more is up to it.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1 << 16), 1.0)
                    return
                while await reader.read(1 << 16):
                    pass
            finally:
                writer.transport.abort()
    except TimeoutError:
        scene.hung.append(f"{data[:60]!r} ({len(data)} bytes)")
    except OSError:
        pass


async def seal_rotation(scene: Scene, step: Step, dice: random.Random) -> str:
    return await scene.rotate()


def _of_a_bridge(proxies: Mapping[str, FaultProxy], dice: random.Random) -> FaultProxy:
    return proxies[dice.choice(sorted(proxies))]


def _broken(dice: random.Random) -> Fault:
    place = dice.choice((0, 1, 30, dice.randrange(5_000), dice.randrange(50_000)))
    return dice.choice((Fault(reset_at=place), Fault(truncate_at=place), Fault(half_close_at=place)))


def _any(dice: random.Random) -> Fault:
    place = dice.randrange(2_000)
    return dice.choice(
        (
            Fault(), Fault(delay_seconds=0.3), dribble(7, bytes_a_second=500), Fault(silent=True),
            Fault(corrupt_at=place), _broken(dice), Fault(piece_bytes=3), Fault(bytes_a_second=2_000),
        )
    )  # fmt: skip


async def _linked(proxy: FaultProxy, up: Fault, down: Fault, seconds: float, *, reset: bool = False) -> str:
    """A link that is bad for so long. `reset`: for new connections only, so those there are end."""
    proxy.up, proxy.down = up, down
    if reset:
        proxy.reset_all()
    try:
        await asyncio.sleep(seconds)
    finally:
        proxy.heal()
        if reset:
            # A connection with a changed byte may go on for long before anyone sees it.
            proxy.reset_all()
    return f"up {_told(up)}, down {_told(down)}"


def _told(fault: Fault) -> str:
    plain = Fault()
    said = [
        f"{name}={getattr(fault, name)}"
        for name in Fault.__dataclass_fields__
        if getattr(fault, name) != getattr(plain, name)
    ]
    return " ".join(said) or "good"


Maker = Callable[[Scene, Step, random.Random], Awaitable[str]]
MAKERS: dict[str, Maker] = {
    "kill-credentiald": kill_credentiald,
    "kill-bridge": kill_bridge,
    "drain-bridge": drain_bridge,
    "stop-credentiald": stop_credentiald,
    "stop-bridge": stop_bridge,
    "slow-link": slow_link,
    "silent-link": silent_link,
    "broken-link": broken_link,
    "corrupt-link": corrupt_link,
    "refused-link": refused_link,
    "client-link": client_link,
    "upstream-link": upstream_link,
    "full-disk": full_disk,
    "clock-forward": clock_forward,
    "clock-back": clock_back,
    "broken-tls": broken_tls,
    "noise": noise,
    "seal-rotation": seal_rotation,
}
