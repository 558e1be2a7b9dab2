//! Messages that a server or client must refuse, and some that it must not: the same ones for the codec's own tests and for those that go through sockets.

/// A message and what becomes of it.
pub(crate) struct Case {
    /// For the test's output.
    pub(crate) name: &'static str,
    /// The name of the refusal's cause; `ok` for a message that is fine.
    pub(crate) expected: &'static str,
    /// For responses, what was asked; empty for requests.
    pub(crate) asked: &'static str,
    /// The message.
    pub(crate) bytes: Vec<u8>,
}

/// Requests.
pub(crate) fn requests() -> Vec<Case> {
    read(include_str!("requests.txt"))
}

/// Responses.
pub(crate) fn responses() -> Vec<Case> {
    read(include_str!("responses.txt"))
}

fn read(text: &'static str) -> Vec<Case> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let mut next = || parts.next().unwrap_or_else(|| panic!("three parts: {line}"));
            let (name, expected, message) = (next(), next(), next());
            let (expected, asked) = expected.split_once('@').unwrap_or((expected, ""));
            Case { name, expected, asked, bytes: unescape(message) }
        })
        .collect()
}

/// `\r`, `\n`, `\t`, `\s` (a space), `\\`, `\xHH`, and `\{N*text}`: text N times.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (kind, after) = rest.split_first().expect("something after a backslash");
        rest = after;
        match kind {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b's' => bytes.push(b' '),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
                rest = &rest[2..];
            }
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').expect("a closing brace");
                let (count, repeated) = std::str::from_utf8(&rest[..end]).expect("text").split_once('*').expect("N*text");
                bytes.extend(unescape(repeated).repeat(count.parse().expect("a number")));
                rest = &rest[end + 1..];
            }
            other => panic!("unknown escape {}", other.escape_ascii()),
        }
    }
    bytes
}
