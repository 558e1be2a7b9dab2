//! An HTTP server that answers as it is told, and notes what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weir_oci::{Client, Credentials, Digest, Limits, Options, Reference};

/// A WebAssembly module, as far as registries look.
pub(crate) const MODULE: &[u8] = b"\0asm\x01\0\0\0 the rest does not matter here";

/// What is answered.
pub(crate) enum Answer {
    /// Status, headers, body; the length is stated.
    Is(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, and then nothing, for ever.
    Hangs(Vec<u8>),
    /// This head, and then zeros without an end.
    Endless(String),
}

pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer::Is(200, Vec::new(), body.into())
}

pub(crate) fn status(status: u16) -> Answer {
    Answer::Is(status, Vec::new(), Vec::new())
}

pub(crate) fn to(location: impl Into<String>) -> Answer {
    Answer::Is(307, vec![("location", location.into())], Vec::new())
}

/// A request: method, target, all of the head, body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
}

/// A server. Ends with this value.
pub(crate) struct Server {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (notes, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &notes, &*answer).await });
            }
        });
        Self { address, asked, task }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("oci://{}/{rest}", self.address).parse().unwrap()
    }
}

async fn serve(mut stream: TcpStream, notes: &Mutex<Vec<Asked>>, answer: &(dyn Fn(&Asked) -> Answer + Send + Sync)) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break String::from_utf8(bytes[..end].to_vec()).ok()?;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut words = head.split_whitespace();
    let asked = Asked { method: words.next()?.to_owned(), target: words.next()?.to_owned(), head: head.clone() };
    notes.lock().unwrap().push(asked.clone());
    match answer(&asked) {
        Answer::Is(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                text += &format!("{name}: {value}\r\n");
            }
            stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
            if asked.method != "HEAD" {
                stream.write_all(&body).await.ok()?;
            }
        }
        Answer::Hangs(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            std::future::pending::<()>().await;
        }
        Answer::Endless(head) => {
            stream.write_all(head.as_bytes()).await.ok()?;
            loop {
                stream.write_all(&[0; 16 << 10]).await.ok()?;
            }
        }
    }
    Some(())
}

/// A client with short patience.
pub(crate) fn client() -> Client {
    client_with(Credentials::default())
}

pub(crate) fn client_with(credentials: Credentials) -> Client {
    let millis = Duration::from_millis;
    let limits =
        Limits { manifest: 64 << 10, module: 1 << 20, connect: millis(2000), answer: millis(300), pause: millis(300), whole: millis(3000) };
    Client::new(Options { credentials, limits, ..Options::default() }).unwrap()
}

/// A manifest with one layer of this type, about these bytes, which state this size.
pub(crate) fn manifest(config: &str, layer: &str, bytes: &[u8], size: usize) -> String {
    let digest = Digest::of(bytes);
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{}","size":2}},
        "layers":[{{"mediaType":"{layer}","digest":"{digest}","size":{size}}}]}}"#,
        Digest::of(b"{}")
    )
}
