//! Values with variables: `%DOWNSTREAM_REMOTE_ADDRESS%`, `%REQ(x-header)%`, `%%`.
//!
//! Names are Envoy's. What a variable cannot say is left out; a value never contains CR, LF or NUL, whatever a variable brings.

use crate::http::fields::Fields;

/// Where variables get their values, beside the header map that is being changed.
pub trait Variables {
    /// Appends the value of `name` to `out`; nothing if there is none.
    fn value(&self, name: &str, argument: &str, out: &mut Vec<u8>);
}

/// The variables that exist, `REQ` aside.
const NAMES: &[&str] = &[
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_TLS_VERSION",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "ROUTE_NAME",
    "START_TIME",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
];

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Header(Vec<u8>),
    Variable { name: &'static str, argument: String },
}

/// A compiled value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Compiles a value.
    ///
    /// # Errors
    /// When it has control characters, an unknown variable or a percent sign alone.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return Err("has a control character".into());
        }
        let mut parts = Vec::new();
        let mut pieces = text.split('%');
        push_text(&mut parts, pieces.next().unwrap_or_default());
        while let Some(variable) = pieces.next() {
            let Some(after) = pieces.next() else {
                return Err("has a percent sign alone; write %% for one".into());
            };
            if variable.is_empty() {
                push_text(&mut parts, "%");
            } else {
                parts.push(variable_part(variable)?);
            }
            push_text(&mut parts, after);
        }
        Ok(Self(parts))
    }

    /// Writes the value to `out`, which is cleared first.
    pub fn render(&self, fields: &Fields, variables: &dyn Variables, out: &mut Vec<u8>) {
        out.clear();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Header(name) => out.extend_from_slice(fields.get(name).unwrap_or_default()),
                Part::Variable { name, argument } => {
                    let start = out.len();
                    variables.value(name, argument, out);
                    out.get_mut(start..).unwrap_or_default().iter_mut().for_each(|byte| {
                        if matches!(byte, b'\r' | b'\n' | 0) {
                            *byte = b' ';
                        }
                    });
                }
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.extend_from_slice(text.as_bytes()),
        _ => parts.push(Part::Text(text.as_bytes().to_vec())),
    }
}

fn variable_part(variable: &str) -> Result<Part, String> {
    let (name, argument) = match variable.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(|| format!("%{variable}% lacks a closing parenthesis"))?),
        None => (variable, ""),
    };
    if name == "REQ" {
        return Ok(Part::Header(argument.to_ascii_lowercase().into_bytes()));
    }
    match NAMES.iter().find(|known| **known == name) {
        Some(name) => Ok(Part::Variable { name, argument: argument.to_owned() }),
        None => Err(format!("%{name}% is not a variable; there are REQ(header), {}", NAMES.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hostile;
    impl Variables for Hostile {
        fn value(&self, _name: &str, argument: &str, out: &mut Vec<u8>) {
            out.extend_from_slice(b"x\r\ny:");
            out.extend_from_slice(argument.as_bytes());
        }
    }

    fn render(text: &str) -> Result<String, String> {
        let mut fields = Fields::new();
        fields.push(b"x-b", b"value");
        let mut out = Vec::new();
        Template::compile(text)?.render(&fields, &Hostile, &mut out);
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(render("plain").as_deref(), Ok("plain"));
        assert_eq!(render("100%%").as_deref(), Ok("100%"));
        assert_eq!(render("%REQ(X-B)%/%REQ(none)%").as_deref(), Ok("value/"));
        assert_eq!(render("a %START_TIME(%%s)% b"), Err("%START_TIME(% lacks a closing parenthesis".into()));
        assert_eq!(render("%ROUTE_NAME%").as_deref(), Ok("x  y:"), "a value cannot start a new line");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(render("50%").expect_err("alone").contains("percent sign"));
        assert!(render("%NONSENSE%").expect_err("unknown").contains("%NONSENSE% is not a variable"));
        assert!(render("a\nb").expect_err("control").contains("control character"));
    }
}
