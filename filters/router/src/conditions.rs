//! What a route asks of a request besides its path, and what a request has to answer.

use weir_filter_matching::{Text, is_parameter};
use weir_sdk::{Refusal, Stream};

use crate::config::{Match, Proxy, Source};

/// A request, as the router sees it: a stream, or a test's.
pub trait Request {
    /// `:authority`.
    fn authority(&self) -> &[u8];
    /// `:path`, with its query.
    fn path(&self) -> &[u8];
    /// A header by its name in lower case, or a pseudo-header.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// An attribute by its path.
    fn attribute(&self, path: &str) -> Option<&[u8]>;
    /// The port that the client connected to.
    fn port(&self) -> Option<i64>;
}

impl<S: 'static> Request for Stream<'_, S> {
    fn authority(&self) -> &[u8] {
        self.authority()
    }

    fn path(&self) -> &[u8] {
        self.path()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.request().get(name)
    }

    fn attribute(&self, path: &str) -> Option<&[u8]> {
        self.attributes().get(path)
    }

    fn port(&self) -> Option<i64> {
        self.attributes().destination_port()
    }
}

/// Everything but the path.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    method: Option<Text>,
    scheme: Option<Text>,
    authority: Option<Text>,
    port: Option<u16>,
    headers: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
    attributes: Vec<(String, Text)>,
    /// Which proxies it is for: settled before any request is.
    only: Option<Box<Only>>,
}

#[derive(Debug)]
struct Only {
    source: Option<Source>,
    gateways: Vec<String>,
}

impl Conditions {
    /// What a match asks for; `None` if that is nothing.
    pub(crate) fn compile(written: Match, gateways: &[String]) -> Result<Option<Self>, Refusal> {
        let one = |field: &str, text: Option<weir_filter_matching::TextMatch>| {
            text.map(|text| text.compile().map_err(|refusal| refusal.within(field))).transpose()
        };
        let named = |list: &str, at: usize, name: String, text: weir_filter_matching::TextMatch| {
            if name.is_empty() {
                return Err(Refusal::at(format!("{list}[{at}].name"), "the name is missing"));
            }
            Ok((name, text.compile().map_err(|refusal| refusal.within(&format!("{list}[{at}].value")))?))
        };
        let mut conditions = Self {
            method: one("method", written.method)?,
            scheme: one("scheme", written.scheme)?,
            authority: one("authority", written.authority)?,
            port: written.port,
            ..Self::default()
        };
        for (at, header) in written.headers.into_iter().enumerate() {
            conditions.headers.push(named("headers", at, header.name.to_ascii_lowercase(), header.value)?);
        }
        for (at, parameter) in written.query.into_iter().enumerate() {
            conditions.query.push(named("query", at, parameter.name, parameter.value)?);
        }
        for (at, attribute) in written.attributes.into_iter().enumerate() {
            conditions.attributes.push(named("attributes", at, attribute.name, attribute.value)?);
        }
        let own = !written.gateways.is_empty();
        let gateways = if own { written.gateways } else { gateways.to_vec() };
        let source = written.source.filter(|source| !own && *source != Source::default());
        if source.is_some() || !gateways.is_empty() {
            conditions.only = Some(Box::new(Only { source, gateways }));
        }
        Ok((!conditions.is_empty()).then_some(conditions))
    }

    fn is_empty(&self) -> bool {
        let texts = [&self.method, &self.scheme, &self.authority];
        let lists = [&self.headers, &self.query, &self.attributes];
        texts.iter().all(|text| text.is_none()) && lists.iter().all(|list| list.is_empty()) && self.port.is_none() && self.only.is_none()
    }

    /// Whether a route with them is for this proxy.
    pub(crate) fn are_for(&self, proxy: &Proxy) -> bool {
        let serves =
            |gateway: &str| if proxy.gateways.is_empty() { gateway == "mesh" } else { proxy.gateways.iter().any(|own| own == gateway) };
        self.only.as_ref().is_none_or(|only| {
            let gateway = only.gateways.is_empty() || only.gateways.iter().any(|gateway| serves(gateway));
            let source = only.source.as_ref().filter(|_| serves("mesh"));
            gateway
                && source.is_none_or(|source| {
                    source.namespace.as_ref().is_none_or(|namespace| *namespace == proxy.namespace)
                        && source.labels.iter().all(|(name, value)| proxy.labels.get(name) == Some(value))
                })
        })
    }

    /// How specific they are: whether there is a method, headers, parameters of the query.
    pub(crate) fn weight(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    /// Whether a request meets them.
    pub(crate) fn hold(&self, request: &impl Request, query: &[u8]) -> bool {
        let text = |text: &Option<Text>, header: &str| text.as_ref().is_none_or(|text| text.matches(request.header(header)));
        text(&self.method, ":method")
            && self.headers.iter().all(|(name, text)| text.matches(request.header(name)))
            && self.query.iter().all(|(name, text)| is_parameter(query, name, text))
            && text(&self.scheme, ":scheme")
            && text(&self.authority, ":authority")
            && self.port.is_none_or(|port| request.port() == Some(i64::from(port)))
            && self.attributes.iter().all(|(path, text)| text.matches(request.attribute(path)))
    }
}
