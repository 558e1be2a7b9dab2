//! Chains of standard filters.

use serde_json::Value as Json;
use weir_model::config::{self, module};
use weir_model::protobuf::{Kind, ListValue, Struct, Value};

use crate::translate::route::Variants;

/// The chain of a listener's branch whose requests these virtual hosts route.
pub(super) fn routed(name: &str, virtual_hosts: Vec<Json>, variants: Variants) -> config::FilterChain {
    let router = Json::Object([("virtualHosts".to_owned(), Json::Array(virtual_hosts))].into_iter().collect());
    let mut filters = vec![config::FilterBinding { config: Some(value(&router)), ..builtin("router", config::Phase::Route) }];
    for (name, variants) in [("cors", variants.cors), ("fault", variants.fault)] {
        if variants.is_empty() {
            continue;
        }
        // Only for the routes that name one.
        let variants = variants.iter().map(|(name, config)| (name.clone(), value(config))).collect();
        filters.push(config::FilterBinding { variants, disabled: true, ..builtin(name, config::Phase::Traffic) });
    }
    config::FilterChain { name: name.to_owned(), filters }
}

fn builtin(name: &str, phase: config::Phase) -> config::FilterBinding {
    let module = config::Module { source: Some(module::Source::Builtin(name.to_owned())), ..config::Module::default() };
    config::FilterBinding { name: name.to_owned(), module: Some(module), phase: phase.into(), ..config::FilterBinding::default() }
}

/// JSON as protobuf has it.
pub(super) fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Json::Object(fields) => {
            Kind::StructValue(Struct { fields: fields.iter().map(|(name, field)| (name.clone(), value(field))).collect() })
        }
    };
    Value { kind: Some(kind) }
}
