//! The `my-filter` filter: refuses requests by path, and marks the answers to all others.

use weir_sdk::prelude::*;

/// What the operator writes. Doc comments become descriptions in the JSON Schema that the module carries.
#[config]
#[derive(Debug)]
pub struct MyFilter {
    /// What a refused path begins with.
    #[serde(default)]
    deny: Vec<String>,
    /// The value of the header `x-my-filter` on every answer.
    #[serde(default = "greeting")]
    greeting: String,
}

fn greeting() -> String {
    "hello".to_owned()
}

#[register]
impl Filter for MyFilter {
    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        match self.deny.iter().any(|prefix| stream.path().starts_with(prefix.as_bytes())) {
            true => stream.reply(403).details("denied_by_path").body("denied\n").send(),
            false => Flow::Continue,
        }
    }

    fn on_response_headers(&self, stream: &mut Stream<'_>) -> Flow {
        // Fails only where the host has no response any more; then there is nothing to mark.
        let _ = stream.response().set("x-my-filter", &self.greeting);
        Flow::Continue
    }
}
