//! The samples are valid, without so much as a warning, and printing one loses nothing.

use weir_model::diagnostic::render;
use weir_model::validate::{Context, load};
use weir_model::yaml;

#[test]
fn the_samples_are_valid() {
    for (name, text) in [
        ("manifests/samples/access.yaml", include_str!("../../../manifests/samples/access.yaml")),
        ("manifests/samples/filters.yaml", include_str!("../../../manifests/samples/filters.yaml")),
        ("manifests/samples/mtls.yaml", include_str!("../../../manifests/samples/mtls.yaml")),
        ("manifests/samples/policy.yaml", include_str!("../../../manifests/samples/policy.yaml")),
        ("manifests/samples/routing.yaml", include_str!("../../../manifests/samples/routing.yaml")),
        ("manifests/samples/standard.yaml", include_str!("../../../manifests/samples/standard.yaml")),
        ("manifests/samples/tcp.yaml", include_str!("../../../manifests/samples/tcp.yaml")),
        ("manifests/samples/telemetry.yaml", include_str!("../../../manifests/samples/telemetry.yaml")),
        ("manifests/samples/tls.yaml", include_str!("../../../manifests/samples/tls.yaml")),
        ("manifests/samples/upstream.yaml", include_str!("../../../manifests/samples/upstream.yaml")),
    ] {
        let builtins = ["authz", "compress", "cors", "deny", "fault", "headers", "jwt", "router", "telemetry"].map(str::to_owned).to_vec();
        let (fragment, found) = load([(name, text.as_bytes())], &Context { builtins: Some(builtins), discovery: false });
        assert!(found.is_empty(), "{}", render(&found, false));
        assert!(!fragment.bootstrap.listeners.is_empty() && !fragment.bootstrap.clusters.is_empty(), "{name}");
        let again = yaml::parse("printed.yaml", yaml::print(&fragment.bootstrap));
        assert_eq!(again.fragment.bootstrap, fragment.bootstrap, "{name}");
    }
}
