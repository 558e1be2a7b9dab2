//! Header operations of an action: set, add, remove.

use weir_model::config;

use super::{ActionError, Template, Variables};
use crate::http::fields::Fields;

/// Changes to a header map, in the order: set, add, remove.
#[derive(Debug, Default)]
pub struct HeaderOps {
    set: Vec<(Vec<u8>, Template)>,
    add: Vec<(Vec<u8>, Template)>,
    remove: Vec<Vec<u8>>,
}

impl HeaderOps {
    /// Compiles operations.
    ///
    /// # Errors
    /// For a name or value that cannot stand in a message, and for fields that belong to the connection.
    pub fn compile(field: &str, operations: Option<&config::HeaderOperations>) -> Result<Self, ActionError> {
        let Some(operations) = operations else { return Ok(Self::default()) };
        let pairs = |list: &[config::Header], kind: &str| {
            let compile = |(at, header): (usize, &config::Header)| {
                let field = format!("{field}.{kind}[{at}]");
                let value = Template::compile(&header.value).map_err(|cause| ActionError::new(format!("{field}.value"), cause))?;
                Ok((name(&format!("{field}.name"), &header.name)?, value))
            };
            list.iter().enumerate().map(compile).collect::<Result<Vec<_>, ActionError>>()
        };
        let remove = operations.remove.iter().enumerate();
        Ok(Self {
            set: pairs(&operations.set, "set")?,
            add: pairs(&operations.add, "add")?,
            remove: remove.map(|(at, header)| name(&format!("{field}.remove[{at}]"), header)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether there is nothing to do.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Applies them.
    pub fn apply(&self, fields: &mut Fields, variables: &dyn Variables) {
        let mut value = Vec::new();
        for (name, template) in &self.set {
            template.render(fields, variables, &mut value);
            fields.set(name, &value);
        }
        for (name, template) in &self.add {
            template.render(fields, variables, &mut value);
            fields.push(name, &value);
        }
        for name in &self.remove {
            fields.remove(name);
        }
    }
}

/// A header's name in lower case. `host` means `:authority`.
fn name(field: &str, name: &str) -> Result<Vec<u8>, ActionError> {
    const CONNECTION: &[&str] =
        &["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    let lower = name.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match lower.as_str() {
        "host" | ":authority" => Ok(b":authority".to_vec()),
        ":path" => Ok(b":path".to_vec()),
        name if CONNECTION.contains(&name) => Err(ActionError::new(field, format!("{name} belongs to the connection"))),
        name if !name.is_empty() && name.bytes().all(token) => Ok(lower.into_bytes()),
        _ => Err(ActionError::new(field, format!("{name:?} is not a header name"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Variables for Nothing {
        fn value(&self, name: &str, _argument: &str, out: &mut Vec<u8>) {
            out.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        }
    }

    fn header(name: &str, value: &str) -> config::Header {
        config::Header { name: name.into(), value: value.into() }
    }

    #[test]
    fn set_then_add_then_remove() {
        let operations = config::HeaderOperations {
            set: vec![header("X-A", "1"), header("Host", "b.test")],
            add: vec![header("x-a", "%REQ(x-b)%-%PROTOCOL%")],
            remove: vec!["X-B".into()],
        };
        let operations = HeaderOps::compile("requestHeaders", Some(&operations)).expect("compiles");
        let mut fields = Fields::new();
        for (name, value) in [(":authority", "a.test"), ("x-a", "0"), ("x-b", "b")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        operations.apply(&mut fields, &Nothing);
        let pairs: Vec<_> = fields.iter().map(|(name, value)| (String::from_utf8_lossy(name), String::from_utf8_lossy(value))).collect();
        assert_eq!(pairs, [(":authority".into(), "b.test".into()), ("x-a".into(), "1".into()), ("x-a".into(), "b-protocol".into())]);
    }

    #[test]
    fn what_belongs_to_the_connection_is_refused() {
        for bad in ["Transfer-Encoding", "content-length", "a b", "", ":status"] {
            let operations = config::HeaderOperations { remove: vec![bad.into()], ..Default::default() };
            let error = HeaderOps::compile("requestHeaders", Some(&operations)).expect_err(bad);
            assert_eq!(error.field, "requestHeaders.remove[0]");
        }
        let operations = config::HeaderOperations { set: vec![header("x", "a\r\nb: c")], ..Default::default() };
        assert_eq!(HeaderOps::compile("h", Some(&operations)).expect_err("injection").field, "h.set[0].value");
    }
}
