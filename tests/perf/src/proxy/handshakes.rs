//! Load for TLS: a connection, a full handshake and one request, again and again. Runs as a process of its own.
//!
//! Sessions are never resumed, and the server's certificate is verified. TLS 1.3 only.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::certificates::SERVER;
use super::load::PATH;
use crate::report::say;

/// The argument that makes this program the load.
pub(super) const COMMAND: &str = "proxy-handshakes";
/// Handshakes at once.
const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// Does nothing unless the first argument asks for this load.
pub(crate) fn run(arguments: &[String]) -> Option<Result<()>> {
    let (command, arguments) = arguments.split_first()?;
    (command == COMMAND).then(|| put(arguments).inspect_err(complain))
}

/// `FOLDER PORT SECONDS CLIENT-CERTIFICATE POST-QUANTUM`; prints answers, errors and seconds.
fn put(arguments: &[String]) -> Result<()> {
    let [folder, port, seconds, client_certificate, post_quantum] = arguments else { anyhow::bail!("not for people") };
    let config = configuration(Path::new(folder), client_certificate.parse()?, post_quantum.parse()?)?;
    let (port, time) = (port.parse()?, Duration::from_secs(seconds.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let (answered, errors) = runtime.block_on(load(config, port, start + time));
    say(&format!("{answered} {errors} {}", start.elapsed().as_secs_f64()));
    Ok(())
}

fn configuration(folder: &Path, client_certificate: bool, post_quantum: bool) -> Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![if post_quantum { aws_lc_rs::kx_group::X25519MLKEM768 } else { aws_lc_rs::kx_group::X25519 }];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = config.with_root_certificates(roots);
    let mut config = if client_certificate {
        let chain = vec![CertificateDer::from_pem_file(folder.join("client.pem"))?];
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("client.key"))?)?
    } else {
        config.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn load(config: Arc<ClientConfig>, port: u16, end: Instant) -> (u64, u64) {
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connector = TlsConnector::from(config.clone());
        tasks.spawn(async move {
            let (mut answered, mut errors) = (0, 0_u64);
            while Instant::now() < end {
                match tokio::time::timeout(PATIENCE, exchange(&connector, port)).await {
                    Ok(Ok(())) => answered += 1,
                    failed => {
                        if let (0, Err(error)) = (errors, failed.map_err(anyhow::Error::from).flatten()) {
                            complain(&error);
                        }
                        errors += 1;
                    }
                }
            }
            (answered, errors)
        });
    }
    tasks.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[expect(clippy::print_stderr, reason = "what goes wrong belongs beside what is counted")]
fn complain(error: &anyhow::Error) {
    eprintln!("{error:#}");
}

async fn exchange(connector: &TlsConnector, port: u16) -> Result<()> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    socket.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::try_from(SERVER)?, socket).await.context("handshake")?;
    stream.write_all(format!("GET {PATH} HTTP/1.1\r\nhost: {SERVER}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    let end = stream.read_to_end(&mut answer).await;
    // Whether the server says goodbye is not what is measured; whether it answered is.
    let complete = answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 1024;
    ensure!(complete, "{end:?} after {}", String::from_utf8_lossy(&answer));
    Ok(())
}
