# test_front_headers.py
# What of a head passes, what is stripped, what is added; targets pass byte-equal. CONTRACT section 5.
# Read harness/front.py first. Cases F30, F34, F35.

import re

import pytest

from harness.director import send
from harness.rawclient import request


@pytest.fixture(scope="module")
def plain_front(module_front):
    """The default: loopback and unix are trusted."""
    return module_front()


@pytest.fixture(scope="module")
def wary_front(module_front):
    """Trusts nobody who asks here."""
    return module_front(settings={"serve.trustedProxies": ["10.0.0.0/8"]})


def seen(front, *lines, target="/x", data=None):
    """The request at the worker."""
    with front.client() as client:
        client.send(data if data is not None else request(target, None, *lines))
        got = client.answer()
        assert got.status == 200, got
    return front.director.requests(target)[-1]


# -- hop by hop


@pytest.mark.case("F30")
def test_fields_of_the_hop_stay_on_it(plain_front):
    one = seen(
        plain_front, "Connection: x-a, close, X-B", "X-A: 1", "X-B: 2", "Keep-Alive: timeout=5", "Proxy-Connection: close",
        "Proxy-Authorization: Basic eA==", "Proxy-Authenticate: Basic", "Upgrade: websocket", "TE: gzip, trailers",
        "Trailer: X-T", "X-C: 3")
    for name in ("x-a", "x-b", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "upgrade",
                 "transfer-encoding"):
        assert not one.has(name), name
    assert one.values("x-c") == ["3"]
    assert one.values("te") in ([], ["trailers"])
    assert not {"x-a", "x-b", "close", "upgrade"} & {
        word.strip().lower() for value in one.values("connection") for word in value.split(",")}


def test_te_says_trailers_to_the_worker_and_nothing_else(plain_front):
    assert seen(plain_front, "TE: trailers", "Connection: TE").values("te") == ["trailers"]
    assert seen(plain_front, "TE: gzip;q=0.5", "Connection: TE").values("te") == []
    assert seen(plain_front).values("te") == []


@pytest.mark.parametrize("named", ["Content-Length", "Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id"])
def test_connection_cannot_name_what_frames_or_what_is_ours(plain_front, named):
    """`Connection: Content-Length` would unframe the body: refused, or without effect."""
    with plain_front.client() as client:
        client.send(request("/named", b"hello", f"Connection: {named}"))
        got = client.answer()
    if got.status == 400:
        return
    assert got.status == 200
    one = plain_front.director.requests("/named")[-1]
    assert one.body["data"] == "hello"
    assert len(one.values(named)) == 1 and one.value(named)
    assert one.value("host") == "front.test"


def test_the_hop_s_fields_of_an_answer_stay_on_it(plain_front):
    raw = ("HTTP/1.1 200 OK\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"
           "Upgrade: h2c\r\nTE: x\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n")
    plain_front.director.rule("/hop", ["body"], send(raw))
    got = plain_front.get("/hop")
    for name in ("x-a", "keep-alive", "proxy-connection", "upgrade", "te"):
        assert not got.has(name), name
    assert got.value("x-b") == "2"


# -- what passes


@pytest.mark.case("F34")
@pytest.mark.parametrize("name, value", [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
    ("X-Cloud-Trace-Context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ("Authorization", "Bearer eyJ.abc.SIGNATURE_REMOVED_BY_GOOGLE"),
    ("X-Serverless-Authorization", "Bearer eyJ.abc.def"),
    ("Cookie", "a=1; b=\"two\"; c=d=e"),
    ("User-Agent", "curl/7.88.1 (a; b)"),
    ("Accept-Encoding", "gzip, br"),
    ("Range", "bytes=0-99,200-"),
    ("If-None-Match", 'W/"abc", "d"'),
    ("Forwarded", 'for=192.0.2.60;proto=http;by="203.0.113.43"'),
    ("X-Empty", ""),
    ("X-Punctuation", "!#$%&'*+-.^_`|~ ()<>@,;:\\\"/[]?={}\t."),
    ("X-Long", "y" * 8000),
    ("X_Underscore", "1"),
    ("X-Request-Id", "mine-123"),
])
def test_a_field_passes_untouched(plain_front, name, value):
    one = seen(plain_front, f"{name}: {value}")
    assert one.value(name) == value
    # Its name too, in its own case: some workers' users look for it.
    assert f"{name}:".encode() in one.head


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"caf\xe9", b"\x80\xff\xfe", b"\xed\xa0\x80"],
                         ids=["UTF-8", "Latin-1", "binary", "surrogate"])
def test_bytes_beyond_ascii_in_a_value_pass_as_they_are(plain_front, value):
    """obs-text of RFC 9110 section 5.5: neither repaired nor replaced."""
    one = seen(plain_front, data=b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: " + value + b"\r\n\r\n")
    assert one.value("x-a").encode("latin-1") == value
    plain_front.director.rule("/bytes", ["body"], send(b"HTTP/1.1 200 OK\r\nX-A: " + value + b"\r\nContent-Length: 0\r\n\r\n"))
    assert plain_front.get("/bytes").value("x-a").encode("latin-1") == value


def test_repeated_fields_keep_their_order(plain_front):
    one = seen(plain_front, "Accept: a", "Cookie: x=1", "Accept: b", "Cookie: y=2", "Accept: c")
    assert one.values("accept") in (["a", "b", "c"], ["a, b, c"])
    assert one.values("cookie") in (["x=1", "y=2"], ["x=1; y=2"])


def test_the_host_passes_as_the_client_sent_it(plain_front):
    for host in ("Example.COM:8080", "[::1]:80", "localhost", "xn--caf-dma.example", ""):
        one = seen(plain_front, data=request("/x", None, host=host))
        assert one.value("host") == host


@pytest.mark.case("F35")
@pytest.mark.parametrize("target", [
    "/a%2Fb/../c?q=a;b&%zz", "//x//y", "/.", "/..", "/../../etc/passwd", "/?", "/?a?b?c", "/a?b=%00&c=%0d%0a", "/%00",
    "/a//b/./c", "/a;p=1/b;q=2", "/%7Euser/~user", "/a+b%20c", "/[a]{b}|c^`\"<>", "/a\\b", "/%e2%82%ac%FF",
    "/x?next=http://other/%2F..", "/:80", "/@", "/a?" + "q" * 15_000,
], ids=lambda target: target[:24])
def test_the_target_passes_byte_equal(plain_front, target):
    with plain_front.client() as client:
        client.get(target)
        assert client.answer().status == 200
    assert plain_front.director.requests()[-1].target == target


# -- what is added


def last_hop(one):
    return [part.strip() for value in one.values("x-forwarded-for") for part in value.split(",")]


@pytest.mark.case("F34")
def test_the_client_s_address_is_appended_always(plain_front, wary_front):
    for front in (plain_front, wary_front):
        assert last_hop(seen(front)) == ["127.0.0.1"]
        assert last_hop(seen(front, "X-Forwarded-For: 1.2.3.4")) == ["1.2.3.4", "127.0.0.1"]
        assert last_hop(seen(front, "X-Forwarded-For: 1.2.3.4, 5.6.7.8", "X-Forwarded-For: ::1")) == [
            "1.2.3.4", "5.6.7.8", "::1", "127.0.0.1"]


@pytest.mark.case("F34")
def test_a_trusted_peer_s_proto_and_host_are_kept(plain_front):
    one = seen(plain_front, "X-Forwarded-Proto: https", "X-Forwarded-Host: public.example")
    assert one.value("x-forwarded-proto") == "https"
    assert one.value("x-forwarded-host") == "public.example"
    assert one.value("host") == "front.test"


@pytest.mark.case("F34")
def test_another_peer_s_proto_and_host_are_set(wary_front):
    one = seen(wary_front, "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example")
    assert one.value("x-forwarded-proto") == "http"
    assert one.value("x-forwarded-host") == "front.test"
    one = seen(wary_front, "X-Forwarded-Proto: https", "x-forwarded-proto: https", "x_forwarded-host: a", "X-FORWARDED-HOST: b")
    assert one.values("x-forwarded-proto") == ["http"]
    assert one.values("x-forwarded-host") == ["front.test"]


def test_what_is_absent_is_set(plain_front):
    one = seen(plain_front)
    assert one.value("x-forwarded-proto") == "http"
    assert one.value("x-forwarded-host") == "front.test"


@pytest.mark.parametrize("trusted, kept", [
    (["127.0.0.0/8"], True), (["127.0.0.1"], True), (["127.0.0.2"], False), (["loopback"], True), (["all"], True),
    (["unix"], False), ([], False), (["0.0.0.0/0"], True), (["::/0"], False), (["127.0.0.1/31"], True),
    (["126.0.0.0/7"], True), (["128.0.0.0/1", "::1"], False),
], ids=str)
def test_whom_trusted_proxies_means(front, trusted, kept):
    one = front(settings={"serve.trustedProxies": trusted})
    assert seen(one, "X-Forwarded-Proto: https").value("x-forwarded-proto") == ("https" if kept else "http")


def test_a_peer_on_a_unix_socket_is_trusted_by_default(front, tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pu-", dir="/tmp") as directory:
        one = front(listen=f"unix:{directory}/s")
        own = seen(one, "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4")
        assert own.value("x-forwarded-proto") == "https"
        assert last_hop(own)[0] == "1.2.3.4"
        two = front(listen=f"unix:{directory}/t", settings={"serve.trustedProxies": ["loopback"]})
        assert seen(two, "X-Forwarded-Proto: https").value("x-forwarded-proto") == "http"


def test_on_cloud_run_all_are_trusted(front):
    one = front(settings={"platform": None}, environment={"K_SERVICE": "agent", "K_REVISION": "r"})
    own = seen(one, "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: a.run.app")
    assert own.value("x-forwarded-proto") == "https"
    assert own.value("x-forwarded-host") == "a.run.app"
    assert last_hop(own) == ["1.2.3.4", "127.0.0.1"]


def test_ipv6_peers_are_named_as_they_are(front):
    from harness import free_port

    port = free_port()
    one = front(listen=f"[::]:{port}")
    one.target = ("::1", port)
    assert last_hop(seen(one)) == ["::1"]
    one.target = port
    # An IPv4 client of a wildcard IPv6 listener is 127.0.0.1, and loopback.
    own = seen(one, "X-Forwarded-Proto: https")
    assert last_hop(own) == ["127.0.0.1"]
    assert own.value("x-forwarded-proto") == "https"


@pytest.mark.case("F34")
def test_a_request_id_is_added_if_absent_and_different_each_time(plain_front):
    found = {seen(plain_front).value("x-request-id") for _ in range(20)}
    assert len(found) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,64}", one) for one in found), found


def test_the_worker_sees_one_framing_whatever_the_client_s(plain_front):
    one = seen(plain_front, data=request("/x", b"hello"))
    assert one.value("content-length") == "5" and not one.has("transfer-encoding")
    one = seen(plain_front, data=b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert one.value("transfer-encoding").lower() == "chunked" and not one.has("content-length")
    one = seen(plain_front)
    assert not one.has("content-length") and not one.has("transfer-encoding")
    one = seen(plain_front, data=b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert one.values("content-length") == ["0"], "a POST without a body says so"


def test_an_http_1_0_request_reaches_the_worker_as_a_whole_one(plain_front):
    one = seen(plain_front, data=b"GET /x HTTP/1.0\r\nX-A: 1\r\n\r\n")
    assert one.value("x-a") == "1"
    assert one.head.split(b"\r\n")[0] in (b"GET /x HTTP/1.1", b"GET /x HTTP/1.0")
    assert len(one.values("host")) == 1, "HTTP/1.1 needs one"


def test_answers_of_panelind_itself_say_little(front):
    """No version, no path, nothing of the request."""
    one = front({"/502": [["body"], ["close"]]})
    with one.client() as client:
        client.post("/502?secret=abc", b"x", "X-Secret: abc")
        got = client.answer()
    assert got.status == 502
    text = repr(got.headers) + repr(got.body)
    assert "abc" not in text and "/tmp" not in text and "Authorization" not in text
