//! WasmPlugin and TrafficExtension: modules, where they are and how they run.

use super::{At, names, policy, url};
use crate::Code;
use crate::api::istio::extension::{EnvSource, TrafficSelector, VmConfig, WasmExtension};
use crate::api::istio::{TrafficExtension, WasmPlugin};

const MAX_LUA: usize = 65_536;

pub(super) fn check_plugin(at: &At<'_>, spec: &WasmPlugin) {
    policy::check_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    check_module(
        at,
        &Module {
            url: &spec.url,
            sha256: &spec.sha256,
            secret: &spec.image_pull_secret,
            name: &spec.plugin_name,
            key: &spec.verification_key,
            vm: spec.vm_config.as_ref(),
        },
    );
    check_matches(at, &spec.matches);
}

pub(super) fn check_extension(at: &At<'_>, spec: &TrafficExtension) {
    policy::check_targets(at, spec.selector.as_ref(), None, &spec.target_refs);
    at.at_most_one(&[("wasm", spec.wasm.is_some()), ("lua", spec.lua.is_some())]);
    if spec.wasm.is_none() && spec.lua.is_none() {
        at.missing("wasm or lua is missing");
    }
    at.some("wasm", spec.wasm.as_ref(), |at, wasm: &WasmExtension| {
        check_module(
            at,
            &Module {
                url: &wasm.url,
                sha256: &wasm.sha256,
                secret: &wasm.image_pull_secret,
                name: &wasm.plugin_name,
                key: &wasm.verification_key,
                vm: wasm.vm_config.as_ref(),
            },
        );
    });
    at.some("lua", spec.lua.as_ref(), |at, lua| {
        let code = at.key("inlineCode");
        match lua.inline_code.len() {
            0 => at.missing("inlineCode is missing"),
            1..=MAX_LUA => {}
            _ => code.invalid(format!("a script is at most {MAX_LUA} characters long")),
        }
        at.tell(
            Code::Unsupported,
            "Weir runs no Lua",
            "Write the filter in Rust, Go or another language that compiles to Wasm, and attach it with `wasm`.",
        );
    });
    check_matches(at, &spec.matches);
}

struct Module<'a> {
    url: &'a str,
    sha256: &'a str,
    secret: &'a str,
    name: &'a str,
    key: &'a str,
    vm: Option<&'a VmConfig>,
}

fn check_module(at: &At<'_>, module: &Module<'_>) {
    if module.url.is_empty() {
        at.missing("url is missing");
    } else {
        at.key("url").check(module_url(module.url));
    }
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !module.sha256.is_empty() && (module.sha256.len() != 64 || !module.sha256.bytes().all(hexadecimal)) {
        at.key("sha256").invalid("it must be 64 digits of 0-9 and a-f");
    }
    for (key, text, most) in [("imagePullSecret", module.secret, 253), ("pluginName", module.name, 256)] {
        if text.len() > most {
            at.key(key).invalid(format!("it is longer than {most} characters"));
        }
    }
    if !module.key.is_empty() {
        at.key("verificationKey").no_effect("nothing is verified with it; `sha256` is what holds a module to its content");
    }
    at.some("vmConfig", module.vm, check_vm);
}

fn module_url(text: &str) -> Result<(), String> {
    let with_scheme = format!("http://{text}");
    let scheme = match url::parse_request(text) {
        Ok(url) => url.scheme,
        Err(message) => url::parse_request(&with_scheme).map(|_| String::new()).map_err(|_| message)?,
    };
    // `registry:5000/module` has no scheme, whatever stands before its colon.
    let scheme = if text.contains("://") { scheme } else { String::new() };
    if !matches!(scheme.as_str(), "" | "file" | "http" | "https" | "oci") {
        return Err(format!("`{scheme}` is none of oci, https, http and file"));
    }
    Ok(())
}

fn check_vm(at: &At<'_>, vm: &VmConfig) {
    let list = at.key("env");
    list.at_most(256, vm.env.len());
    for (index, env) in vm.env.iter().enumerate().take(super::MAX_COMPARED) {
        let here = list.index(index);
        if env.name.is_empty() {
            here.missing("name is missing");
        } else if vm.env[..index].iter().any(|other| other.name == env.name) {
            here.key("name").conflict(format!("there is a variable `{}` already", env.name));
        }
        for (key, length, most) in [("name", env.name.len(), 256), ("value", env.value.as_deref().map_or(0, str::len), 2048)] {
            if length > most {
                here.key(key).invalid(format!("it is longer than {most} characters"));
            }
        }
        if env.value_from == EnvSource::Host && env.value.is_some() {
            here.key("value").conflict("the value comes from the proxy's environment");
        }
    }
}

fn check_matches(at: &At<'_>, matches: &[TrafficSelector]) {
    at.each("match", matches, |at, traffic| {
        let list = at.key("ports");
        for (index, port) in traffic.ports.iter().enumerate().take(super::MAX_COMPARED) {
            list.index(index).key("number").check(names::port(port.number));
            if traffic.ports[..index].contains(port) {
                list.index(index).conflict(format!("the port {} stands here twice", port.number));
            }
        }
    });
}
