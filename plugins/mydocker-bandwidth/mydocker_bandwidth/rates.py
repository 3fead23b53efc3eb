"""Rates in bits per second, as tc(8) writes them, and how much may pass at once."""

from __future__ import annotations

#: Bits per second. The least is for the sake of sense; the most is what fits into 32 bits of bytes, as far as
#: pyroute2 can tell the kernel (struct tc_ratespec, include/uapi/linux/pkt_sched.h).
LEAST, MOST = 8_000, ((1 << 32) - 1) * 8

#: Bytes that may pass at once where nobody said: some frames. Less than what comes in 10 ms would make the rate depend
#: on how exactly the kernel's timer wakes (tc-tbf(8), "burst").
LEAST_BURST = 16 << 10
_BURST_SECONDS = 0.01

#: Bytes of link layer around the MTU: Ethernet's header with a VLAN tag.
_HEADER = 18

#: How long a packet may wait in the queue.
_LATENCY_SECONDS = 0.05

_UNITS = {
    "": 1,
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "kibit": 1 << 10,
    "mibit": 1 << 20,
    "gibit": 1 << 30,
}


class Limits:
    """The rates of one container: bits per second in each direction, 0 for no limit, and bytes of burst, 0 for the
    default.
    """

    __slots__ = ("burst", "receive", "send")

    def __init__(self, *, send: int = 0, receive: int = 0, burst: int = 0) -> None:
        self.send = send
        self.receive = receive
        self.burst = burst

    def burst_at(self, rate: int, mtu: int = 0) -> int:
        """Bytes that may pass at once. Never less than a frame of the device, which would not pass at all."""
        return max(self.burst or max(int(rate / 8 * _BURST_SECONDS), LEAST_BURST), mtu + _HEADER if mtu else 0)

    def queue_at(self, rate: int, mtu: int) -> int:
        """Bytes that may wait. What comes on top is dropped, by which TCP learns of the rate."""
        return self.burst_at(rate, mtu) + max(int(rate / 8 * _LATENCY_SECONDS), 10 * mtu)


def parse_rate(text: str) -> int:
    """Bits per second: ``10mbit``, ``1.5gbit``, ``500kbit``; a bare number is bits. kbit is 1000, kibit 1024."""
    word = text.strip().lower().removesuffix("/s")
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = word[len(number) :].strip()
    if unit.endswith("ps"):
        # tc's "mbps" is megabytes, everybody else's is megabits: nobody shall get the eighth of what was meant.
        raise ValueError(f'"{text}" may be bits or bytes: write bits, as in 10mbit')
    digits = number.replace(".", "", 1)
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()) or len(digits) > 15 or number.endswith("."):
        raise ValueError(f'"{text}" is not a rate: write a number and a unit, kbit, mbit or gbit, as in 10mbit')
    rate = int(float(number) * _UNITS[unit])
    if not LEAST <= rate <= MOST:
        raise ValueError(f'"{text}" is not between {format_rate(LEAST)} and 34gbit per second')
    return rate


def format_rate(rate: int) -> str:
    for unit in ("gbit", "mbit", "kbit"):
        if rate % _UNITS[unit] == 0:
            return f"{rate // _UNITS[unit]}{unit}"
    return f"{rate}bit"
