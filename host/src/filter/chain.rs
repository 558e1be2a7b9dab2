//! Chains of the configuration: from `FilterChain` to bindings that work, off the workers, and from those to filters that run on one.
//!
//! What always holds: a chain is in use only when every filter of it has been loaded and proven; a binding that has not changed is not loaded again, and
//! goes on with the instance it has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use weir_model::config;
use weir_model::protobuf::Value;
use weir_wasm::{
    Binding, BindingConfig, BodyAccess, Chain, Engine, FailurePolicy, Filter, HeaderPause, Kind, Limits, Routing, SharedHost, Upstreams,
    Variant,
};

use super::WorkerHost;
use super::routes::{Defined, Routes};
use crate::worker::Worker;

/// A chain of which every filter works.
#[derive(Clone, Debug)]
pub struct LoadedChain {
    /// Its name.
    pub name: Arc<str>,
    /// In request order.
    pub bindings: Vec<Loaded>,
    kind: Kind,
}

/// A filter that was loaded and proven.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its module, configuration and numbers.
    pub binding: Arc<Binding>,
    /// The actions that it defines.
    pub actions: Arc<Defined>,
}

/// A filter at work on one worker.
#[derive(Clone)]
pub struct Running {
    /// The filter.
    pub filter: Rc<Filter>,
    /// The actions that it has defined here.
    pub routes: Rc<Routes>,
}

/// A filter of a chain could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("filters[{index}] {filter:?}: {cause}")]
pub struct ChainError {
    /// Its place in the chain.
    pub index: usize,
    /// Its name.
    pub filter: String,
    /// Why, with what to do.
    pub cause: String,
}

/// Loads chains, and remembers what was loaded.
#[derive(Debug)]
pub struct ChainLoader {
    engine: Engine,
    /// What the last configuration used, by chain, binding and what they were made from.
    loaded: HashMap<Fingerprint, Loaded>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Fingerprint {
    chain: String,
    kind: bool,
    binding: Vec<u8>,
    module: Vec<u8>,
}

impl ChainLoader {
    /// Loads with `engine`.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, loaded: HashMap::new() }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Loads all chains of a configuration. What was loaded before and did not change is used as it is. Slow: compiles.
    ///
    /// # Errors
    /// For every chain that cannot be loaded, its name and why.
    pub fn load(&mut self, chains: &[(&config::FilterChain, Kind)]) -> Result<Vec<LoadedChain>, Vec<(String, ChainError)>> {
        let (mut loaded, mut errors, mut kept) = (Vec::new(), Vec::new(), HashMap::new());
        for (chain, kind) in chains {
            match self.load_one(chain, *kind, &mut kept) {
                Ok(chain) => loaded.push(chain),
                Err(error) => errors.push((chain.name.clone(), error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.loaded = kept;
        Ok(loaded)
    }

    fn load_one(
        &self,
        chain: &config::FilterChain,
        kind: Kind,
        kept: &mut HashMap<Fingerprint, Loaded>,
    ) -> Result<LoadedChain, ChainError> {
        let can_run = |filter: &config::FilterBinding| !filter.disabled || follows_routes(filter, kind);
        let mut filters: Vec<(usize, &config::FilterBinding)> =
            chain.filters.iter().enumerate().filter(|(_, filter)| can_run(filter)).collect();
        filters.sort_by_key(|(index, filter)| (order(filter.phase()), std::cmp::Reverse(filter.priority), *index));
        let mut bindings = Vec::with_capacity(filters.len());
        for (index, filter) in filters {
            let binding = self.binding(chain, filter, kind, kept);
            bindings.push(binding.map_err(|cause| ChainError { index, filter: filter.name.clone(), cause })?);
        }
        Ok(LoadedChain { name: chain.name.as_str().into(), bindings, kind })
    }

    fn binding(
        &self,
        chain: &config::FilterChain,
        filter: &config::FilterBinding,
        kind: Kind,
        kept: &mut HashMap<Fingerprint, Loaded>,
    ) -> Result<Loaded, String> {
        let (name, bytes) = module_bytes(filter.module.as_ref())?;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec();
        check_digest(filter.module.as_ref(), &digest)?;
        let fingerprint =
            Fingerprint { chain: chain.name.clone(), kind: kind == Kind::Tcp, binding: filter.encode_to_vec(), module: digest };
        let known = self.loaded.get(&fingerprint).or_else(|| kept.get(&fingerprint)).cloned();
        if let Some(known) = known {
            kept.insert(fingerprint, known.clone());
            return Ok(known);
        }
        // Proven on a host that defines routes as a worker's does, for nobody.
        let actions: Arc<Defined> = Arc::default();
        let defines = Arc::clone(&actions);
        let proof = move || Rc::new(WorkerHost::new(Weak::new(), Rc::new(Routes::new(Arc::clone(&defines))))) as SharedHost;
        let loaded = Binding::load(&self.engine, binding_config(chain, filter, kind)?, &name, &bytes, Some(&proof));
        let binding = loaded.map_err(|error| format!("{error}; {}", error.help()))?;
        let loaded = Loaded { binding, actions };
        kept.insert(fingerprint, loaded.clone());
        Ok(loaded)
    }
}

impl LoadedChain {
    /// Starts the chain on the calling thread. Filters that run already on `running` are used as they are.
    ///
    /// # Errors
    /// When a filter does not start here.
    pub fn start(&self, worker: &Weak<Worker>, running: &[Running]) -> Result<(Chain, Vec<Running>), String> {
        let mut filters: Vec<Running> = Vec::with_capacity(self.bindings.len());
        for Loaded { binding, actions } in &self.bindings {
            let known = running.iter().find(|running| Arc::ptr_eq(running.filter.binding(), binding));
            let started = match known {
                Some(running) => running.clone(),
                None => {
                    let routes = Rc::new(Routes::new(Arc::clone(actions)));
                    let host: SharedHost = Rc::new(WorkerHost::new(worker.clone(), Rc::clone(&routes)));
                    let filter = Filter::start(binding, host).map_err(|error| format!("{}: {error}", binding.config().name))?;
                    Running { filter, routes }
                }
            };
            filters.push(started);
        }
        let chain = Chain::new(self.kind, filters.iter().map(|running| Rc::clone(&running.filter)).collect());
        Ok((chain, filters))
    }
}

/// Whether routes say if and how it runs.
fn follows_routes(filter: &config::FilterBinding, kind: Kind) -> bool {
    kind == Kind::Http && matches!(filter.phase(), config::Phase::Traffic | config::Phase::Stats)
}

/// The order of phases on the way of a request.
fn order(phase: config::Phase) -> u8 {
    match phase {
        config::Phase::Authn => 0,
        config::Phase::Authz => 1,
        config::Phase::PreRoute => 2,
        config::Phase::Route => 3,
        config::Phase::Traffic => 4,
        config::Phase::Stats => 5,
    }
}

fn module_bytes(module: Option<&config::Module>) -> Result<(String, Bytes), String> {
    use config::module::Source;
    match module.and_then(|module| module.source.as_ref()) {
        None => Err("module: one of builtin, file, inline must be set".into()),
        Some(Source::Inline(bytes)) => Ok(("inline".into(), bytes.clone())),
        Some(Source::File(path)) => {
            let bytes = std::fs::read(Path::new(path)).map_err(|error| format!("module.file {path}: {error}"))?;
            Ok((path.clone(), bytes.into()))
        }
        Some(Source::Builtin(name)) => match weir_filters::builtin(name) {
            Some(builtin) => Ok((format!("builtin://{name}"), Bytes::from_static(builtin.bytes))),
            None => Err(format!(
                "module.builtin {name:?}: there is no such filter; there are {}",
                weir_filters::all().iter().map(|builtin| builtin.name).collect::<Vec<_>>().join(", ")
            )),
        },
    }
}

fn check_digest(module: Option<&config::Module>, digest: &[u8]) -> Result<(), String> {
    let wanted = module.map(|module| module.sha256.to_ascii_lowercase()).unwrap_or_default();
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    Err(format!("module.sha256: the module has {found}, the configuration wants {wanted}"))
}

fn binding_config(chain: &config::FilterChain, filter: &config::FilterBinding, kind: Kind) -> Result<BindingConfig, String> {
    let mut binding = BindingConfig::new(&format!("{}/{}", chain.name, filter.name));
    binding.kind = kind;
    binding.root_id.clone_from(&filter.root_id);
    binding.vm_id = (!filter.vm_id.is_empty()).then(|| filter.vm_id.clone());
    binding.configuration = value_bytes(filter.config.as_ref());
    binding.vm_configuration = value_bytes(filter.vm_config.as_ref());
    binding.environment = filter.environment.clone().into_iter().collect();
    let variants = filter.variants.iter();
    binding.variants = variants.map(|(name, value)| Variant { name: name.clone(), configuration: value_bytes(Some(value)) }).collect();
    binding.routing = match filter.phase() {
        config::Phase::Route => Routing::Chooses,
        _ if follows_routes(filter, kind) => Routing::Follows { name: filter.name.clone(), disabled: filter.disabled },
        _ => Routing::None,
    };
    binding.failure_policy = match filter.failure_policy() {
        config::FailurePolicy::Closed => FailurePolicy::Closed,
        config::FailurePolicy::Open => FailurePolicy::Open,
    };
    binding.header_pause = match filter.header_pause() {
        config::HeaderPause::StopAll => HeaderPause::StopAll,
        config::HeaderPause::Stream => HeaderPause::Stream,
    };
    binding.body_access = match filter.body_access() {
        config::BodyAccess::Auto => BodyAccess::Auto,
        config::BodyAccess::ReadOnly => BodyAccess::ReadOnly,
        config::BodyAccess::ReadWrite => BodyAccess::ReadWrite,
    };
    binding.final_body_before_trailers = filter.final_body_before_trailers;
    let allowed = |names: &[String]| match names {
        [] => Upstreams::None,
        names if names.iter().any(|name| name == "*") => Upstreams::Any,
        names => Upstreams::Only(names.to_vec()),
    };
    binding.upstreams = allowed(&filter.upstreams);
    binding.access_logs = allowed(&filter.access_logs);
    binding.limits = limits(filter.limits.as_ref());
    binding.check().map_err(|problems| problems.join("; "))?;
    Ok(binding)
}

fn limits(given: Option<&config::FilterLimits>) -> Limits {
    let mut limits = Limits::default();
    let Some(given) = given else { return limits };
    let time = |target: &mut Duration, value: &Option<weir_model::protobuf::Duration>| {
        if let Some(value) = value.as_ref().and_then(|value| Duration::try_from(*value).ok()).filter(|value| !value.is_zero()) {
            *target = value;
        }
    };
    time(&mut limits.callback_deadline, &given.callback);
    time(&mut limits.start_deadline, &given.start);
    time(&mut limits.done_deadline, &given.done);
    time(&mut limits.callout_timeout, &given.callout_timeout);
    let size = |target: &mut usize, value: u32, unit: usize| {
        if value > 0 {
            *target = (value as usize).saturating_mul(unit);
        }
    };
    size(&mut limits.memory, given.memory_mib, 1 << 20);
    size(&mut limits.host_output, given.output_kib, 1 << 10);
    size(&mut limits.body, given.body_kib, 1 << 10);
    size(&mut limits.callouts, given.callouts, 1);
    size(&mut limits.metric_series, given.metric_series, 1);
    size(&mut limits.shared_bytes, given.shared_kib, 1 << 10);
    size(&mut limits.shared_entries, given.shared_entries, 1);
    if given.log_rate > 0 {
        limits.log_rate = given.log_rate;
    }
    limits
}

/// What a guest reads: a string as it is, anything else as JSON, nothing for null.
fn value_bytes(value: Option<&Value>) -> Bytes {
    use weir_model::protobuf::Kind as Of;
    match value.and_then(|value| value.kind.as_ref()) {
        None | Some(Of::NullValue(_)) => Bytes::new(),
        Some(Of::StringValue(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(_) => value.map(json).map(|json| json.to_string().into()).unwrap_or_default(),
    }
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    use weir_model::protobuf::Kind as Of;
    match &value.kind {
        None | Some(Of::NullValue(_)) => Json::Null,
        Some(Of::BoolValue(yes)) => Json::Bool(*yes),
        Some(Of::StringValue(text)) => Json::String(text.clone()),
        Some(Of::ListValue(list)) => Json::Array(list.values.iter().map(json).collect()),
        Some(Of::StructValue(of)) => Json::Object(of.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect()),
        // Numbers of the schema are doubles: whole ones are written as such, since guests expect an integer to look like one.
        Some(Of::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9.0e15 => Json::from(*number as i64),
        Some(Of::NumberValue(number)) => serde_json::Number::from_f64(*number).map_or(Json::Null, Json::Number),
    }
}

/// Files that a chain's modules are read from.
#[must_use]
pub fn files(chain: &config::FilterChain) -> Vec<PathBuf> {
    let file = |filter: &config::FilterBinding| match filter.module.as_ref()?.source.as_ref()? {
        config::module::Source::File(path) => Some(PathBuf::from(path)),
        _ => None,
    };
    chain.filters.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::protobuf::Kind as Of;

    fn value(kind: Of) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn a_string_is_passed_as_it_is_and_the_rest_as_json() {
        assert_eq!(value_bytes(None), Bytes::new());
        assert_eq!(value_bytes(Some(&value(Of::StringValue("a: b".into())))), Bytes::from_static(b"a: b"));
        let fields = [("n".to_owned(), value(Of::NumberValue(3.0))), ("f".to_owned(), value(Of::NumberValue(0.5)))];
        let of = weir_model::protobuf::Struct { fields: fields.into_iter().collect() };
        assert_eq!(value_bytes(Some(&value(Of::StructValue(of)))), Bytes::from_static(br#"{"f":0.5,"n":3}"#));
    }

    #[test]
    fn a_wrong_digest_is_refused_with_both() {
        let module = config::Module { sha256: "00".into(), ..Default::default() };
        let error = check_digest(Some(&module), &[0xab]).expect_err("differs");
        assert!(error.contains("ab") && error.contains("00"), "{error}");
        assert_eq!(check_digest(Some(&config::Module { sha256: "AB".into(), ..module }), &[0xab]), Ok(()));
    }
}
