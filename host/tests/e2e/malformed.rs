//! What is no request is refused, and nothing of it reaches an origin; a body that breaks the rules never reaches it as a whole one.

use tokio::io::AsyncWriteExt as _;

use super::http1_corpus::{self, Case};
use super::support::*;

/// The preface is fine here: the proxy speaks HTTP/2, too.
fn is_refused(case: &&Case) -> bool {
    case.expected != "ok" && case.name != "http2_preface"
}

/// The head of such a message is fine: it has gone on before the rest shows what it is.
fn is_about_the_body(case: &Case) -> bool {
    ["chunk_", "trailers", "body_"].iter().any(|prefix| case.expected.starts_with(prefix))
}

#[tokio::test]
async fn nothing_of_a_malformed_request_is_forwarded() {
    let origin = Origin::bind().await;
    let proxy = Proxy::start(&to_origin(origin.address)).await;
    let address = proxy.address("web").await;
    let cases = http1_corpus::requests();
    let (body, head): (Vec<_>, Vec<_>) = cases.iter().filter(is_refused).partition(|case| is_about_the_body(case));
    assert!(head.len() > 80 && body.len() > 20, "{} and {} cases", head.len(), body.len());
    for case in head {
        refuse(address, case).await;
        assert!(origin.is_untouched().await, "{}: reached the origin", case.name);
    }
    for case in body {
        refuse(address, case).await;
        if let Some(mut upstream) = origin.accept_now().await {
            let seen = String::from_utf8_lossy(&upstream.rest().await).into_owned();
            assert!(!is_whole(&seen), "{}: the origin saw a whole request: {seen:?}", case.name);
        }
    }
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    !head.contains("content-length") && body.contains("0\r\n\r\n") || head.contains("content-length: 4") && body.len() >= 4
}

async fn refuse(address: std::net::SocketAddr, case: &Case) {
    let mut client = Peer::connect(address).await;
    client.send(&case.bytes).await;
    // A server that has answered already may have closed, too.
    let _ = client.io.shutdown().await;
    let reply = String::from_utf8(client.rest().await).unwrap();
    // A client that ends in the middle of a body is as good as gone.
    if case.expected == "body_truncated" && reply.is_empty() {
        return;
    }
    let status: u16 = reply.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    assert!((400..600).contains(&status), "{}: {reply:?}", case.name);
    assert!(reply.contains("connection: close\r\n"), "{}: {reply:?}", case.name);
    assert!(!reply.ends_with("\r\n\r\n"), "{}: a sentence says what happened: {reply:?}", case.name);
}
