//! One health check on an open connection: an HTTP request, a gRPC call, or bytes.
//!
//! The client is as small as its task: it sends one request, reads a bounded answer, and is dropped.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_model::config::UpstreamProtocol;

use super::Io;
use crate::upstream::cluster::ClusterState;
use crate::upstream::options::Check;

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 << 10;

/// Whether a check of this cluster is HTTP/2.
pub(super) fn speaks_http2(cluster: &ClusterState, check: &Check) -> bool {
    match check {
        Check::Grpc { .. } => true,
        Check::Http { .. } => cluster.options().protocol == UpstreamProtocol::Http2,
        Check::Tcp { .. } => false,
    }
}

/// Whether the other side is healthy: `Ok` if so, and otherwise why not.
pub(super) async fn ask(connection: Box<dyn Io>, check: &Check, http2: bool) -> io::Result<()> {
    match check {
        Check::Tcp { send, expect } => tcp(connection, send, expect).await,
        Check::Grpc { service, authority } => grpc(connection, service, authority).await,
        Check::Http { path, host, method, expected, headers } => {
            let status = if http2 {
                http2_status(connection, path, host, method, headers).await?
            } else {
                http1_status(connection, path, host, method, headers).await?
            };
            let healthy = expected.iter().any(|(from, to)| (*from..=*to).contains(&status));
            if healthy { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
        }
    }
}

async fn tcp(mut connection: Box<dyn Io>, send: &Bytes, expect: &Bytes) -> io::Result<()> {
    connection.write_all(send).await?;
    connection.flush().await?;
    let mut answer = vec![0; expect.len()];
    connection.read_exact(&mut answer).await?;
    if answer == *expect { Ok(()) } else { Err(io::Error::other("another answer than expected")) }
}

async fn http1_status(mut connection: Box<dyn Io>, path: &str, host: &str, method: &str, headers: &[(String, String)]) -> io::Result<u16> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: weir-health\r\nconnection: close\r\n");
    for (name, value) in headers.iter().filter(|header| header.0 != "host") {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        match read_head(&mut buffer)? {
            // Interim answers are followed by the one that counts.
            Some(status) if status >= 200 || status == 101 => return Ok(status),
            Some(_) => continue,
            None if buffer.len() >= MAX_ANSWER => return Err(io::Error::other("the answer's head is too long")),
            None => {}
        }
        if connection.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Takes a head off the buffer if all of it is there.
fn read_head(buffer: &mut BytesMut) -> io::Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let (length, status) = match response.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => (length, response.code.unwrap_or(0)),
    };
    let _ = buffer.split_to(length);
    Ok(Some(status))
}

/// Sends one HTTP/2 request and lets `read` have the answer, while the connection is driven.
async fn http2<T>(
    connection: Box<dyn Io>,
    request: http::Request<()>,
    body: Option<Bytes>,
    read: impl AsyncFnOnce(http::Response<h2::RecvStream>) -> io::Result<T>,
) -> io::Result<T> {
    let (mut client, driver) = h2::client::Builder::new()
        .initial_window_size(65_535)
        .max_header_list_size(16 << 10)
        .enable_push(false)
        .handshake::<_, Bytes>(connection)
        .await
        .map_err(io::Error::other)?;
    let exchange = async move {
        std::future::poll_fn(|cx| client.poll_ready(cx)).await.map_err(io::Error::other)?;
        let (response, mut stream) = client.send_request(request, body.is_none()).map_err(io::Error::other)?;
        if let Some(body) = body {
            stream.send_data(body, true).map_err(io::Error::other)?;
        }
        read(response.await.map_err(io::Error::other)?).await
    };
    let (mut driver, mut exchange) = (pin!(driver), pin!(exchange));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut driver => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

async fn http2_status(connection: Box<dyn Io>, path: &str, host: &str, method: &str, headers: &[(String, String)]) -> io::Result<u16> {
    let mut request = http::Request::builder().method(method).uri(format!("http://{host}{path}")).header("user-agent", "weir-health");
    for (name, value) in headers.iter().filter(|header| header.0 != "host") {
        request = request.header(name, value);
    }
    let request = request.body(()).map_err(io::Error::other)?;
    http2(connection, request, None, async |response| Ok(response.status().as_u16())).await
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GrpcRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GrpcResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

const SERVING: i32 = 1;

/// A message as gRPC frames it.
pub(super) fn framed(message: &impl prost::Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(encoded);
    framed.into()
}

async fn grpc(connection: Box<dyn Io>, service: &str, authority: &str) -> io::Result<()> {
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "weir-health")
        .body(())
        .map_err(io::Error::other)?;
    let body = framed(&GrpcRequest { service: service.to_owned() });
    http2(connection, request, Some(body), read_grpc).await
}

async fn read_grpc(response: http::Response<h2::RecvStream>) -> io::Result<()> {
    if response.status() != http::StatusCode::OK {
        return Err(io::Error::other(format!("status {}", response.status().as_u16())));
    }
    let early = grpc_status(response.headers());
    let mut body = response.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
        message.extend_from_slice(&data);
        if message.len() > MAX_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    let status = match early {
        Some(status) => Some(status),
        None => body.trailers().await.map_err(io::Error::other)?.as_ref().and_then(grpc_status),
    };
    match status.as_deref() {
        Some("0") => {}
        Some(status) => return Err(io::Error::other(format!("grpc-status {status}"))),
        None => return Err(io::Error::other("no grpc-status")),
    }
    let message = message.get(5..).ok_or(io::ErrorKind::UnexpectedEof)?;
    match GrpcResponse::decode(message).map_err(io::Error::other)?.status {
        SERVING => Ok(()),
        other => Err(io::Error::other(format!("serving status {other}"))),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned)
}
