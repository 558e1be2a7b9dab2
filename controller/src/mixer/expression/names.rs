//! DNS names and mail addresses: what is one, and which are the same.

use idna::AsciiDenyList;
use idna::uts46::{Hyphens, Uts46};

use super::Error;

/// A DNS name, with what was encoded in it decoded.
pub(super) fn dns(text: &str) -> Result<String, Error> {
    let refused = |cause: String| Error::new(format!("error converting '{text}' to dns name: 'idna: {cause}'"));
    let invalid = |label: &str| refused(format!("invalid label {label:?}"));
    let (name, root) = match text.strip_suffix('.') {
        Some(name) => (name, "."),
        None => (text, ""),
    };
    let mut labels = Vec::new();
    for label in name.split('.') {
        let decoded = match label.strip_prefix("xn--") {
            Some(encoded) => idna::punycode::decode_to_string(encoded).ok_or_else(|| invalid(label))?,
            None => label.to_owned(),
        };
        let bytes = decoded.as_bytes();
        if bytes.is_empty() || bytes.starts_with(b"-") || bytes.ends_with(b"-") || (bytes.len() > 4 && bytes.get(2..4) == Some(b"--")) {
            return Err(invalid(label));
        }
        labels.push(decoded);
    }
    Ok(labels.join(".") + root)
}

/// Whether two DNS names are one: case and the root's dot are nothing.
pub(super) fn same_dns(left: &str, right: &str) -> Result<bool, Error> {
    let (left, right) = (canonical(left)?, canonical(right)?);
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_owned();
    Ok(if left.ends_with('.') == right.ends_with('.') { left == right } else { bare(&left) == bare(&right) })
}

fn canonical(name: &str) -> Result<String, Error> {
    match Uts46::new().to_unicode(name.as_bytes(), AsciiDenyList::STD3, Hyphens::Check) {
        (name, Ok(())) => Ok(name.into_owned()),
        (_, Err(_)) => Err(Error::new(format!("idna: disallowed rune in {name:?}"))),
    }
}

/// Whether this is a mail address without a name.
pub(super) fn email(text: &str) -> Result<(), Error> {
    let refused = |cause: &str| Error::new(format!("error converting '{text}' to e-mail: '{cause}'"));
    let address = Address::read(text).map_err(refused)?;
    dns(&address.domain).map(|_| ()).map_err(|error| refused(&error.0))
}

/// Whether two mail addresses are one: their domains are compared as DNS names, and what is quoted as if it were not.
pub(super) fn same_email(left: &str, right: &str) -> Result<bool, Error> {
    let read = |text: &str| Address::read(text).map_err(Error::new);
    let (left, right) = (read(left)?, read(right)?);
    Ok(same_dns(&left.domain, &right.domain)? && left.local == right.local)
}

struct Address {
    local: String,
    domain: String,
}

impl Address {
    /// `local@domain`, or the same in angle brackets.
    fn read(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err("mail: no address");
        }
        let text = match text.strip_prefix('<') {
            Some(inner) => inner.strip_suffix('>').ok_or("mail: unclosed angle-addr")?,
            None => text,
        };
        let (local, rest) = if let Some(quoted) = text.strip_prefix('"') {
            unquoted(quoted).ok_or("mail: unclosed quoted-string")?
        } else {
            let end = text.find('@').ok_or("mail: missing '@' or angle-addr")?;
            (text[..end].to_owned(), &text[end..])
        };
        let domain = rest.strip_prefix('@').ok_or("mail: missing @ in addr-spec")?;
        let dotted = |text: &str| text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom));
        if (!text.starts_with('"') && !dotted(&local)) || !dotted(domain) {
            return Err("mail: invalid string");
        }
        Ok(Self { local, domain: domain.to_owned() })
    }
}

fn is_atom(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(letter) || !letter.is_ascii()
}

/// What stands before the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut local = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((local, &text[at + 1..])),
            '\\' => local.push(letters.next()?.1),
            _ if letter.is_ascii_control() => return None,
            _ => local.push(letter),
        }
    }
    None
}
