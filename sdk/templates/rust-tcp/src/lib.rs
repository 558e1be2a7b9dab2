//! The `my-filter` filter: closes TCP connections whose first bytes are not what the operator expects, and counts bytes.

use weir_sdk::prelude::*;

/// What the operator writes. Doc comments become descriptions in the JSON Schema that the module carries.
#[config]
#[derive(Debug)]
pub struct Settings {
    /// What the client's first bytes must be; anything, if it is empty.
    #[serde(default)]
    preface: String,
}

/// The filter.
#[derive(Debug)]
pub struct MyFilter {
    preface: Vec<u8>,
    refused: Counter,
    bytes: Counter,
}

/// What is kept of every connection.
#[derive(Debug, Default)]
pub struct Connection {
    is_known: bool,
}

#[register]
impl Filter for MyFilter {
    type Config = Settings;
    type State = Connection;

    fn configure(settings: Settings, _: &Plugin) -> Result<Self, Refusal> {
        if settings.preface.len() > 64 {
            return Err(Refusal::at("preface", "is longer than 64 bytes"));
        }
        let refused = Counter::define("my_filter_refused_total", &[])?;
        let bytes = Counter::define("my_filter_bytes_total", &[("from", "client")])?;
        Ok(Self { preface: settings.preface.into_bytes(), refused, bytes })
    }

    fn on_downstream_data(&self, stream: &mut Stream<'_, Connection>) -> Flow {
        if !stream.state.is_known {
            let said = stream.downstream().bytes();
            let common = said.len().min(self.preface.len());
            if said[..common] != self.preface[..common] {
                self.refused.increment();
                return stream.reset();
            }
            if common < self.preface.len() && !stream.end {
                return Flow::Pause; // The next call shows these bytes again, and more.
            }
            stream.state.is_known = true;
        }
        self.bytes.add(stream.downstream().len() as u32);
        Flow::Continue
    }
}
