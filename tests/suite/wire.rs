//! Below gRPC: HTTP/2 as no client of good will speaks it. The stream or the connection ends, and everybody else is
//! served as before.

use std::time::Duration;

use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use prost_reflect::prost::bytes::Bytes;
use tenantry::rpc::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Engine, on_both_engines};

on_both_engines! {
    a_compressed_body_is_refused
    a_frame_that_is_cut_short_or_lies_about_its_length_is_refused
    ten_mebibytes_of_headers_end_only_their_own_connection
    a_zero_byte_in_a_header_ends_only_its_own_connection
    a_thousand_streams_that_are_reset_at_once_harm_nobody
    what_is_not_http_2_ends_only_its_own_connection
}

const CHECK_SLUG: &str = "/tenantry.v1.TenantService/CheckSlug";

/// How long anything may take here.
const SOON: Duration = Duration::from_secs(10);

async fn tcp(t: &Bed) -> TcpStream {
    TcpStream::connect(t.address.trim_start_matches("http://")).await.expect("connects")
}

/// A connection of HTTP/2, which ends when it likes.
async fn connect(t: &Bed) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(tcp(t).await).await.expect("shakes hands");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

fn post(t: &Bed, path: &str) -> Request<()> {
    let request = Request::post(format!("{}{path}", t.address));
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).expect("a request")
}

/// What a call with this body is told; an error when the stream or connection ended.
async fn answer(t: &Bed, request: Request<()>, body: &[u8]) -> Result<Status, h2::Error> {
    let mut send = connect(t).await.ready().await?;
    let (response, mut stream) = send.send_request(request, false)?;
    stream.send_data(Bytes::copy_from_slice(body), true)?;
    let response = tokio::time::timeout(SOON, response).await.expect("an answer in time")?;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Ok(status);
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        data?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Status::from_header_map(&trailers).expect("a status"))
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

/// Asserts that somebody else is served.
async fn others_are_served(t: &Bed) {
    let request = v1::CheckSlugRequest { slug: "somebody-else".to_owned() };
    let mut clients = t.anonymous();
    let asked = clients.tenants.check_slug(request);
    tokio::time::timeout(SOON, asked).await.expect("an answer in time").expect("an answer");
}

async fn a_compressed_body_is_refused(t: &Bed) {
    // Flag 1 says compressed; what with, the header does.
    let body = [1, 0, 0, 0, 2, 0x1f, 0x8b];
    for encoding in [None, Some("gzip"), Some("identity"), Some("zstd"), Some("nonsense")] {
        let mut request = post(t, CHECK_SLUG);
        if let Some(encoding) = encoding {
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        let told = answer(t, request, &body).await.expect("an answer");
        assert_eq!(reason(&told), (Code::InvalidArgument, "BODY_MALFORMED".to_owned()), "{encoding:?}");
    }
}

async fn a_frame_that_is_cut_short_or_lies_about_its_length_is_refused(t: &Bed) {
    let bodies: [&[u8]; 6] =
        [&[], &[0], &[0, 0, 0, 0], &[0, 0, 0, 0, 9, 1], &[0, 0xff, 0xff, 0xff, 0xff, 1], &[7, 0, 0, 0, 0]];
    for body in bodies {
        let told = answer(t, post(t, CHECK_SLUG), body).await.expect("an answer");
        assert_eq!(reason(&told), (Code::InvalidArgument, "BODY_MALFORMED".to_owned()), "{body:?}");
    }
    // Two requests where one is expected.
    let told = answer(t, post(t, CHECK_SLUG), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.expect("an answer");
    assert_ne!(told.code(), Code::Internal);
}

async fn ten_mebibytes_of_headers_end_only_their_own_connection(t: &Bed) {
    let mut send = connect(t).await.ready().await.expect("ready");
    let mut request = post(t, CHECK_SLUG);
    let value = HeaderValue::from_str(&"x".repeat(10_240)).expect("a value");
    let headers: HeaderMap =
        (0..1_024).map(|i| (HeaderName::try_from(format!("x-much-{i}")).expect("a name"), value.clone())).collect();
    request.headers_mut().extend(headers);
    // 10 MiB are refused; by a status, a reset or the end of the connection.
    if let Ok((response, _stream)) = send.send_request(request, true)
        && let Ok(response) = tokio::time::timeout(SOON, response).await.expect("ends in time")
    {
        assert!(!response.status().is_success(), "{response:?}");
    }
    others_are_served(t).await;
}

/// A literal header without indexing, as HPACK writes it; name and value shorter than 127.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short text");
    [&[0, length(name.as_bytes())], name.as_bytes(), &[length(value)], value].concat()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn a_zero_byte_in_a_header_ends_only_its_own_connection(t: &Bed) {
    for bad in [b'\0', b'\r', b'\n'] {
        let block = [
            literal(":method", b"POST"),
            literal(":scheme", b"http"),
            literal(":path", CHECK_SLUG.as_bytes()),
            literal(":authority", b"localhost"),
            literal("content-type", b"application/grpc"),
            literal("x-tenant-id", &[b'a', bad, b'b']),
        ]
        .concat();
        let mut socket = tcp(t).await;
        let hello =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &block)].concat();
        socket.write_all(&hello).await.expect("writes");
        assert!(!says_ok(&mut socket).await, "a request with {bad:#x} in a header was answered");
    }
    others_are_served(t).await;
}

/// Whether stream 1 gets an answer, rather than a reset or the end of the connection.
async fn says_ok(socket: &mut TcpStream) -> bool {
    let reading = async {
        let mut head = [0; 9];
        while socket.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            if socket.read_exact(&mut payload).await.is_err() {
                break;
            }
            match head[3] {
                // HEADERS
                1 => return true,
                // RST_STREAM, GOAWAY
                3 | 7 => return false,
                _ => {}
            }
        }
        false
    };
    tokio::time::timeout(SOON, reading).await.expect("ends in time")
}

async fn a_thousand_streams_that_are_reset_at_once_harm_nobody(t: &Bed) {
    let mut opened = 0;
    // The server may end a connection over it, when it likes: then the rest comes over the next one.
    for _ in 0..100 {
        if opened == 1_000 {
            break;
        }
        let mut send = connect(t).await;
        while opened < 1_000 {
            let Ok(ready) = tokio::time::timeout(SOON, send.ready()).await.expect("ready in time") else { break };
            send = ready;
            let Ok((_response, mut stream)) = send.send_request(post(t, CHECK_SLUG), false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            opened += 1;
        }
    }
    assert_eq!(opened, 1_000);
    others_are_served(t).await;
}

async fn what_is_not_http_2_ends_only_its_own_connection(t: &Bed) {
    let texts: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", &[0; 4_096], &[0xff; 4_096]];
    for text in texts {
        let mut socket = tcp(t).await;
        socket.write_all(text).await.expect("writes");
        socket.shutdown().await.expect("shuts down");
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await;
        let _ = read.expect("the server lets go in time");
    }
    others_are_served(t).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_meets_the_deadline() {
    let t = Bed::private(Engine::Sqlite, &["--max-deadline=1"]).await;
    let mut send = connect(&t).await.ready().await.expect("ready");
    let (response, mut stream) = send.send_request(post(&t, CHECK_SLUG), false).expect("sends");
    // A frame of 9 bytes is announced, and one of them sent.
    stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).expect("sends");
    let response = tokio::time::timeout(SOON, response).await.expect("an answer in time").expect("an answer");
    let told = Status::from_header_map(response.headers()).expect("a status");
    assert_eq!(reason(&told), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
    others_are_served(&t).await;
}
