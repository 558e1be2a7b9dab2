//! The environment a nested cargo runs in.
//!
//! An outer cargo describes itself to its build scripts and tests in dozens of variables; a nested cargo would take
//! many of them for orders (flags, wrappers, profiles, another toolchain's libraries). All of them go, save those by
//! which a person says how crates are fetched.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Takes what an outer cargo, rustup or a person's habits set out of the command's environment.
pub(crate) fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if is_leftover(&name) {
            command.env_remove(name);
        }
    }
}

/// Where the command's crates are kept.
pub(crate) fn cargo_home() -> Option<OsString> {
    if let Some(home) = std::env::var_os("CARGO_HOME").filter(|h| !h.is_empty()) {
        return Some(home);
    }
    std::env::home_dir().map(|home| home.join(".cargo").into_os_string())
}

fn is_leftover(name: &OsStr) -> bool {
    // A name that is not Unicode is nobody's of those below.
    let Some(name) = name.to_str() else {
        return false;
    };
    const FETCHING: [&str; 6] = [
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    if name == "CARGO_HOME" || FETCHING.iter().any(|p| name.starts_with(p)) {
        return false;
    }
    name == "CARGO"
        || name == "MAKEFLAGS"
        || name == "MFLAGS"
        // Points at the outer toolchain's libraries, which another rustc would load in place of its own.
        || name == "LD_LIBRARY_PATH"
        || name == "DYLD_FALLBACK_LIBRARY_PATH"
        || name == "OUT_DIR"
        || name == "TARGET"
        || name == "HOST"
        || name == "PROFILE"
        || name == "OPT_LEVEL"
        || name == "DEBUG"
        || name == "NUM_JOBS"
        || name == "RUSTUP_TOOLCHAIN"
        || ["CARGO_", "DEP_", "RUSTC", "RUSTDOC", "RUSTFLAGS"].iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_outer_cargo_says_goes_and_what_a_person_says_about_fetching_stays() {
        let gone = [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_FEATURE_X",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_BUILD_TARGET",
            "CARGO_INCREMENTAL",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "OPT_LEVEL",
            "DEP_Z_ROOT",
        ];
        let kept = [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_MINE_INDEX",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
            "PATH",
            "HOME",
            "HTTPS_PROXY",
            "HOSTNAME",
        ];
        for name in gone {
            assert!(is_leftover(OsStr::new(name)), "{name} should go");
        }
        for name in kept {
            assert!(!is_leftover(OsStr::new(name)), "{name} should stay");
        }
    }
}
