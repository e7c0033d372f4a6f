"""Keyframes and steps: which is sent, what is kept, and what a client does with it."""

from dataclasses import replace
from operator import eq
from zlib import crc32

import pytest

from thinwire.errors import DecodeError, NeedKeyframe
from thinwire.frame import NO_BASE, Frame, Kind, Section
from thinwire.versions import MAX_STEPS, Held, History, receive

HEAD = Frame(Kind.KEYFRAME, run=1, round=0, codec=2, layout=bytes(8))
PLENTY = 10**6


def history(*steps, most_bytes=PLENTY):
    made = History()
    for step in steps:
        made = made.push(step, most_bytes)
    return made


def keyframe_of(size):
    return lambda: ((Section.VALUES, bytes(size)),)


# The server's end.


def test_push_counts_versions_and_keeps_steps_in_order():
    assert history(b"a", b"b", b"c") == History(3, (b"a", b"b", b"c"))


def test_steps_that_outweigh_a_keyframe_are_forgotten():
    made = history(b"aaaa", b"bbbb", b"cccc", most_bytes=8)
    assert made == History(3, (b"bbbb", b"cccc"))
    assert made.push(b"d" * 100, 8) == History(4, (b"d" * 100,))


def test_at_most_64_steps_are_kept():
    made = history(*(bytes([i]) for i in range(100)))
    assert made.version == 100
    assert made.steps == tuple(bytes([i]) for i in range(100 - MAX_STEPS, 100))
    assert made.since(36) == made.steps
    assert made.since(35) is None


def test_since():
    made = history(b"a", b"b", b"c")
    assert made.since(0) == (b"a", b"b", b"c")
    assert made.since(2) == (b"c",)
    assert made.since(3) == ()
    assert made.since(None) is None
    assert made.since(4) is None


def test_a_new_client_gets_a_keyframe():
    message = history(b"a", b"b").message(None, keyframe_of(500), HEAD)
    assert (message.kind, message.round, message.base) == (Kind.KEYFRAME, 2, NO_BASE)
    assert message.one(Section.VALUES) == bytes(500)
    assert (message.run, message.codec, message.layout) == (1, 2, bytes(8))


@pytest.mark.parametrize("have", [0, 1, 2, 3])
def test_steps_where_they_are_shorter(have):
    message = history(b"a", b"b", b"c").message(have, keyframe_of(500), HEAD)
    assert (message.kind, message.round, message.base) == (Kind.STEP, 3, have)
    assert message.all(Section.STEP) == [b"a", b"b", b"c"][have:]


def test_a_keyframe_where_it_is_shorter():
    made = history(b"a" * 10, b"b" * 10, b"c" * 10)
    assert made.message(0, keyframe_of(41), HEAD).kind == Kind.KEYFRAME  # 41 + 6 bytes against 3 · (10 + 6)
    assert made.message(0, keyframe_of(42), HEAD).kind == Kind.STEP
    assert made.message(1, keyframe_of(42), HEAD).kind == Kind.STEP


def test_one_step_is_sent_without_making_a_keyframe():
    def never():
        raise AssertionError("a keyframe was made")

    made = history(b"a", b"b")
    assert made.message(1, never, HEAD).all(Section.STEP) == [b"b"]
    assert made.message(2, never, HEAD).all(Section.STEP) == []


def test_a_client_ahead_of_the_server_gets_a_keyframe():
    assert history(b"a").message(5, keyframe_of(3), HEAD).kind == Kind.KEYFRAME


def first():
    return ((Section.SEED, b"seed"),)


def test_a_new_client_gets_version_0_and_the_steps_where_they_are_shorter():
    made = history(b"a" * 10, b"b" * 10)
    message = made.message(None, keyframe_of(37), HEAD, first)  # 37 + 6 bytes against 4 + 6 and 2 · (10 + 6)
    assert (message.kind, message.round, message.base) == (Kind.KEYFRAME, 2, NO_BASE)
    assert message.sections == (*first(), (Section.STEP, b"a" * 10), (Section.STEP, b"b" * 10))
    assert made.message(None, keyframe_of(36), HEAD, first).sections == keyframe_of(36)()
    assert made.message(1, keyframe_of(500), HEAD, first).kind == Kind.STEP


def test_version_0_is_of_no_use_once_steps_are_forgotten():
    made = history(b"aaaa", b"bbbb", b"cccc", most_bytes=8)
    assert made.message(None, keyframe_of(500), HEAD, first).sections == keyframe_of(500)()
    assert history().message(None, keyframe_of(7), HEAD, first).sections == keyframe_of(7)()


# The client's end: a version's value is the text of all that led to it.


def key(text):
    return Frame(Kind.KEYFRAME, 1, len(text), 2, bytes(8), ((Section.VALUES, text.encode()),))


def steps(base, *payloads, round=None):
    sections = tuple((Section.STEP, payload.encode()) for payload in payloads)
    return Frame(Kind.STEP, 1, base + len(payloads) if round is None else round, 2, bytes(8), sections, base)


class Client:
    """Counts the steps that it decodes."""

    def __init__(self):
        self.decoded = []

    def receive(self, frame, held, have):
        def step(payload, value, version):
            assert version == len(value) + 1
            self.decoded.append(payload.decode())
            return value + payload.decode()

        return receive(frame, held, have, lambda frame: frame.one(Section.VALUES).decode(), step, eq)


def held(text, **trail):
    return Held(len(text), text, {int(v[1:]): crc32(step.encode()) for v, step in trail.items()})


def test_keyframe_for_a_new_client():
    assert Client().receive(key("abc"), None, None) == Held(3, "abc")


def test_steps_from_the_version_held():
    client = Client()
    after = client.receive(steps(2, "c", "d"), held("ab"), 2)
    assert (after.version, after.value) == (4, "abcd")
    assert after.trail == {3: crc32(b"c"), 4: crc32(b"d")}
    assert client.decoded == ["c", "d"]


def test_no_steps_when_nothing_is_new():
    client = Client()
    assert client.receive(steps(2), held("ab"), 2) == held("ab")
    assert client.decoded == []


def test_steps_already_decoded_are_skipped():
    client = Client()
    after = client.receive(steps(0, "a", "b", "c"), held("ab", v2="b"), 0)
    assert after.value == "abc"
    assert client.decoded == ["c"]


@pytest.mark.parametrize(("holds", "have"), [(None, None), (None, 2), ("ab", None)])
def test_steps_need_something_to_build_on(holds, have):
    with pytest.raises(NeedKeyframe) as caught:
        Client().receive(steps(2, "c"), holds and held(holds), have)
    assert (caught.value.base, caught.value.held) == (2, have)


def test_steps_from_a_later_version_need_a_keyframe():
    with pytest.raises(NeedKeyframe, match="builds on version 3, this client holds 2: send a keyframe"):
        Client().receive(steps(3, "d"), held("abcdef"), 2)


@pytest.mark.parametrize("payloads", [(), ("f",), ("f", "g")])
def test_steps_beyond_what_was_decoded_here_need_a_keyframe(payloads):
    """A simulated client's number may be ahead of what this process has decoded, after a resume for example."""
    with pytest.raises(NeedKeyframe):
        Client().receive(steps(5, *payloads), held("ab"), 5)


@pytest.mark.parametrize("round", [0, 3, 5, 2**32 - 1])
def test_steps_that_do_not_lead_to_the_version_named(round):
    with pytest.raises(DecodeError, match=f"2 steps from version 2 do not lead to {round}"):
        Client().receive(steps(2, "c", "d", round=round), held("ab"), 2)


def test_a_step_that_contradicts_the_one_decoded_before():
    with pytest.raises(DecodeError, match="step 2 is not the one decoded before"):
        Client().receive(steps(0, "a", "x", "c"), held("ab", v2="b"), 0)


def key_and_steps(text, *payloads):
    behind = tuple((Section.STEP, payload.encode()) for payload in payloads)
    head = key(text)
    return replace(head, round=len(text) + len(payloads), sections=head.sections + behind)


def test_steps_behind_a_keyframe():
    client = Client()
    now = client.receive(key_and_steps("a", "b", "c"), None, None)
    assert (now.version, now.value, client.decoded) == (3, "abc", ["b", "c"])
    assert client.receive(steps(3, "d"), now, 3).value == "abcd"


def test_steps_behind_a_keyframe_that_were_decoded_before_are_skipped():
    client = Client()
    now = client.receive(key_and_steps("", "a", "b", "c"), held("ab", v1="a", v2="b"), None)
    assert (now.value, client.decoded) == ("abc", ["c"])


@pytest.mark.parametrize("mine", [held("xb", v1="x", v2="b"), held("xb", v2="b"), held("xb"), held("abcx")])
def test_steps_behind_a_keyframe_replace_what_they_do_not_lead_to(mine):
    assert Client().receive(key_and_steps("", "a", "b", "c"), mine, None).value == "abc"


def test_steps_behind_a_keyframe_that_contradict_the_version_held():
    with pytest.raises(DecodeError, match="the keyframe of version 2 differs from the steps to it"):
        Client().receive(key_and_steps("", "a", "b"), held("xb", v1="x", v2="b"), 2)


def test_more_steps_behind_a_keyframe_than_its_version():
    frame = replace(key_and_steps("", "a", "b"), round=1)
    with pytest.raises(DecodeError, match="keyframe: 2 steps lead to version 1"):
        Client().receive(frame, None, None)


def test_a_keyframe_that_contradicts_the_steps():
    with pytest.raises(DecodeError, match="the keyframe of version 2 differs from the steps to it"):
        Client().receive(key("ax"), held("ab"), 2)
    assert Client().receive(key("ab"), held("ab"), None).value == "ab"


def test_the_trail_stays_short():
    client, now = Client(), Held(0, "")
    for _ in range(300):
        now = client.receive(steps(now.version, "a"), now, now.version)
    assert now.version == 300
    assert MAX_STEPS <= len(now.trail) <= MAX_STEPS + 1
    assert max(now.trail) == 300


def test_both_ends_together():
    """Clients that come back after any number of rounds all end at the server's version."""
    server, value, clients = History(), "", {gap: (Held(0, ""), 0) for gap in range(1, 9)}
    for round in range(1, 60):
        step = chr(97 + round % 26)
        server, value = server.push(step.encode(), most_bytes=4), value + step
        for gap, (mine, have) in clients.items():
            if round % gap == 0:
                sections = ((Section.VALUES, value.encode()),)
                message = server.message(have, lambda sections=sections: sections, HEAD)
                mine = Client().receive(message, mine, have)
                assert (mine.version, mine.value) == (round, value)
                clients[gap] = mine, mine.version
