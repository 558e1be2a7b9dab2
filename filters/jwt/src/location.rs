//! Where a request's token is, and how it is taken out of there.
//!
//! What always holds: a place that holds a token more than once is an error, because who looks next may take the other one.

use weir_sdk::{Headers, Refusal, Stream};

use crate::config::{FromHeader, JwtRule};
use crate::error::TokenError;

/// Places that may hold a rule's token.
#[derive(Debug)]
pub(crate) struct Locations {
    headers: Vec<FromHeader>,
    params: Vec<String>,
    cookies: Vec<String>,
}

impl Locations {
    pub(crate) fn new(rule: &JwtRule) -> Result<Self, Refusal> {
        let (mut headers, mut params, cookies) = (rule.from_headers.clone(), rule.from_params.clone(), rule.from_cookies.clone());
        if headers.is_empty() && params.is_empty() && cookies.is_empty() {
            headers.push(FromHeader { name: "authorization".to_owned(), prefix: "Bearer ".to_owned() });
            params.push("access_token".to_owned());
        }
        for (at, header) in headers.iter_mut().enumerate() {
            check_name(&header.name).map_err(|refusal| refusal.within(&format!("fromHeaders[{at}].name")))?;
            header.name.make_ascii_lowercase();
        }
        for (field, names) in [("fromParams", &params), ("fromCookies", &cookies)] {
            if let Some(at) = names.iter().position(|name| name.is_empty() || name.contains(['=', ';', '&', ' '])) {
                return Err(Refusal::at(format!("{field}[{at}]"), format!("{:?} is no name", names[at])));
            }
        }
        Ok(Self { headers, params, cookies })
    }

    /// All tokens that are there: mostly none or one.
    pub(crate) fn find<'c, S: 'static>(&self, stream: &Stream<'c, S>, found: &mut Vec<&'c [u8]>) -> Result<(), TokenError> {
        let request = stream.request();
        for header in &self.headers {
            only(found, in_header(request, header))?;
        }
        if !self.params.is_empty() {
            let query = query_of(stream.path());
            for name in &self.params {
                only(found, parameters(query).filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value))?;
            }
        }
        for name in &self.cookies {
            let all = values(request, "cookie").flat_map(|value| value.split(|byte| *byte == b';'));
            only(found, all.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")))?;
        }
        Ok(())
    }

    /// Takes the tokens out of the request. False when one could not be.
    pub(crate) fn remove<S: 'static>(&self, stream: &Stream<'_, S>) -> bool {
        let request = stream.request();
        let mut is_done = true;
        for header in &self.headers {
            if in_header(request, header).next().is_some() {
                is_done &= request.remove(&header.name).is_ok();
            }
        }
        let path = stream.path();
        let is_token = |name: &[u8]| self.params.iter().any(|param| param.as_bytes() == name);
        if parameters(query_of(path)).any(|(name, _)| is_token(name)) {
            let at = path.len() - query_of(path).len() - 1;
            let left: Vec<&[u8]> = path[at + 1..].split(|byte| *byte == b'&').filter(|pair| !is_token(split(pair).0)).collect();
            let mark: &[u8] = if left.is_empty() { b"" } else { b"?" };
            is_done &= request.set(":path", [&path[..at], mark, &left.join(&b'&')].concat()).is_ok();
        }
        is_done & (self.cookies.is_empty() || self.remove_cookies(request))
    }

    fn remove_cookies(&self, request: Headers<'_>) -> bool {
        let is_token =
            |pair: &[u8]| self.cookies.iter().any(|name| pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")));
        let all: Vec<&[u8]> =
            values(request, "cookie").flat_map(|value| value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii).collect();
        let left: Vec<&[u8]> = all.iter().copied().filter(|pair| !is_token(pair)).collect();
        if left.len() == all.len() {
            return true;
        }
        if left.is_empty() { request.remove("cookie").is_ok() } else { request.set("cookie", left.join(&b"; "[..])).is_ok() }
    }
}

/// Whether it can be a header's name.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if is_name { Ok(()) } else { Err(Refusal::new(format!("{name:?} is no header name"))) }
}

/// Adds the one that there is.
fn only<'c>(found: &mut Vec<&'c [u8]>, mut values: impl Iterator<Item = &'c [u8]>) -> Result<(), TokenError> {
    found.extend(values.next());
    if values.next().is_some() { Err(TokenError::Repeated) } else { Ok(()) }
}

/// The tokens in a header: what follows its prefix, in any case, because origins take `bearer` for `Bearer`.
fn in_header<'c>(request: Headers<'c>, header: &FromHeader) -> impl Iterator<Item = &'c [u8]> {
    values(request, &header.name).filter_map(|value| {
        let (start, rest) = value.split_at_checked(header.prefix.len())?;
        start.eq_ignore_ascii_case(header.prefix.as_bytes()).then(|| rest.trim_ascii())
    })
}

fn values<'c>(headers: Headers<'c>, name: &str) -> impl Iterator<Item = &'c [u8]> {
    // Asking for one is cheaper than asking for all, and mostly there is none.
    let all = headers.has(name).then(|| headers.iter());
    all.into_iter().flatten().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

fn query_of(path: &[u8]) -> &[u8] {
    path.iter().position(|byte| *byte == b'?').map_or(&[], |at| &path[at + 1..])
}

fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').map(split)
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    pair.iter().position(|byte| *byte == b'=').map_or((pair, &[]), |at| (&pair[..at], &pair[at + 1..]))
}
