//! Opens one connection to an endpoint: socket, PROXY protocol header, TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::health::{self, ConnectRequest};
use super::pool::ConnectError;
use super::{Address, ClusterState, Endpoint};
use crate::listener::proxy_protocol::{self, ProxyVersion};
use crate::tls::client::ClientTls;
use crate::tls::io::{Io, Socket};

/// A connection that is ready for HTTP.
pub(super) struct Opened {
    pub(super) io: Io,
    pub(super) is_http2: bool,
}

/// Opens a connection. `http2` asks for HTTP/2; ALPN decides where there is TLS and the cluster lets it.
pub(super) async fn open(
    cluster: &ClusterState,
    tls: Option<&ClientTls>,
    endpoint: &Endpoint,
    server_name: Option<&str>,
    http2: bool,
    client: Option<SocketAddr>,
) -> Result<Opened, ConnectError> {
    let address = endpoint.connect_address();
    let mut socket = connect(cluster, address).await.map_err(|_| ConnectError::Refused)?;
    announce(cluster, &mut socket, client).await.map_err(|_| ConnectError::Refused)?;
    let Some(tls) = tls.filter(|_| !endpoint.plaintext) else { return Ok(Opened { io: socket.into(), is_http2: http2 }) };
    let hostname = (!endpoint.hostname.is_empty()).then_some(&*endpoint.hostname);
    let io = tls.connect(tls.server_name(hostname, server_name, ip_of(address)), socket).await.map_err(|error| {
        tracing::debug!(target: "upstream", cluster = cluster.name(), %address, reason = crate::tls::client::failure(&error), "no secure connection");
        ConnectError::Tls
    })?;
    let is_http2 = match (cluster.options().protocol, io.alpn()) {
        (weir_model::config::UpstreamProtocol::Negotiate, chosen) => chosen == Some(b"h2".as_slice()),
        _ => http2,
    };
    Ok(Opened { io, is_http2 })
}

/// Connects for a health check.
pub(crate) async fn for_check(tls: Option<Arc<ClientTls>>, request: ConnectRequest) -> std::io::Result<Box<dyn health::Io>> {
    let ConnectRequest { cluster, endpoint, address, .. } = request;
    let socket = connect(&cluster, &address).await?;
    let hostname = (!endpoint.hostname.is_empty()).then_some(&*endpoint.hostname);
    match tls.filter(|_| !endpoint.plaintext) {
        None => Ok(Box::new(Io::from(socket))),
        Some(tls) => Ok(Box::new(tls.connect(tls.server_name(hostname, None, ip_of(&address)), socket).await?)),
    }
}

fn ip_of(address: &Address) -> IpAddr {
    match address {
        Address::Ip(address) => address.ip(),
        Address::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Says who the client is, where the cluster wants a PROXY protocol header.
async fn announce(cluster: &ClusterState, socket: &mut Socket, client: Option<SocketAddr>) -> std::io::Result<()> {
    let version = match cluster.options().proxy_protocol {
        None => return Ok(()),
        Some(1) => ProxyVersion::V1,
        Some(_) => ProxyVersion::V2,
    };
    let mut header = Vec::new();
    proxy_protocol::write(version, client, client.and_then(|_| socket.local_addr()), &mut header);
    tokio::io::AsyncWriteExt::write_all(socket, &header).await
}

async fn connect(cluster: &ClusterState, address: &Address) -> std::io::Result<Socket> {
    match address {
        Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        Address::Ip(address) => {
            let stream = connect_tcp(cluster, *address).await?;
            stream.set_nodelay(true)?;
            let silence = cluster.options().keepalive;
            if !silence.is_zero() {
                let keepalive =
                    socket2::TcpKeepalive::new().with_time(silence).with_interval(silence.min(std::time::Duration::from_secs(15)));
                socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            }
            Ok(Socket::Tcp(stream))
        }
    }
}

async fn connect_tcp(cluster: &ClusterState, address: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(source) = cluster.options().source_address.filter(|source| source.is_ipv4() == address.is_ipv4()) else {
        return TcpStream::connect(address).await;
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}
