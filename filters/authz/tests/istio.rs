//! What Istio's own validator accepts and refuses is accepted and refused here: its cases, without those about selectors and target references, which are the
//! control plane's. Data from Istio's tests (Apache-2.0, © Istio Authors).

#![allow(clippy::panic, reason = "a test that cannot go on should stop")]

use weir_filter_authz::Authorizer;
use weir_sdk_testing::Tester;

/// A policy, and whether Istio accepts it.
const CASES: [(&str, bool); 35] = [
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"serviceAccounts":["ns1/sa1","ns2/sa2"]}},{"source":{"principals":["sa2"]}}]}]}"#,
        true,
    ),
    (r#"{"name":"p","namespace":"ns","rules":[{}],"action":"CUSTOM","provider":{}}"#, false),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["id"],"notPrincipals":["id"],"requestPrincipals":["req"],"notRequestPrincipals":["req"],"namespaces":["ns"],"notNamespaces":["ns"]}}],"when":[{"key":"source.namespace","values":["source.namespace1"],"notValues":["source.namespace2"]},{"key":"source.principal","values":["source.principal1"],"notValues":["source.principal2"]},{"key":"request.auth.claims[a]","values":["claims1"],"notValues":["claims2"]}]}],"action":"CUSTOM","provider":{"name":"my-custom-authz"}}"#,
        false,
    ),
    (r#"{"name":"p","namespace":"ns","dryRun":true}"#, true),
    (r#"{"name":"p","namespace":"ns","rules":[{}],"action":"DENY","dryRun":false}"#, true),
    (r#"{"name":"p","namespace":"ns","action":"CUSTOM","dryRun":true}"#, false),
    (r#"{"name":"p","namespace":"ns","action":"AUDIT","dryRun":true}"#, false),
    (r#"{"name":"p","namespace":"ns"}"#, true),
    (r#"{"name":"p","namespace":"ns"}"#, true),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["temp"]}}],"to":[{"operation":{"ports":["8080"],"methods":["GET","DELETE"]}}]}],"action":"DENY"}"#,
        true,
    ),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["temp"]}}],"to":[{"operation":{"ports":["8080"],"methods":["GET","DELETE"]}}]}],"action":"DENY"}"#,
        true,
    ),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["p1",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"notRequestPrincipals":["p1",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"namespaces":["ns",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"ipBlocks":["1.2.3.4",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"notIpBlocks":["1.2.3.4",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"remoteIpBlocks":["1.2.3.4",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"hosts":["host",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"ports":["80",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"methods":["GET",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"notMethods":["GET",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"notPaths":["/path",""]}}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"when":[{"key":"request.headers[:authority]","values":["v1",""]}]}]}"#, false),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"ipBlocks":["1.2.3.4","ip1"],"notIpBlocks":["5.6.7.8","ip2"]}}],"to":[{"operation":{"ports":["80","port1"],"notPorts":["90","port2"]}}]}]}"#,
        false,
    ),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"remoteIpBlocks":["1.2.3.4","ip1"],"notRemoteIpBlocks":["5.6.7.8","ip2"]}}],"to":[{"operation":{"ports":["80","port1"],"notPorts":["90","port2"]}}]}]}"#,
        false,
    ),
    (r#"{"name":"p","namespace":"ns","rules":[{"when":[{"key":"source.ip","values":["a.b.c.d"]}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"when":[{"key":"source.ip","notValues":["a.b.c.d"]}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"when":[{"key":"key1","values":["v1"]}]}]}"#, false),
    (r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"requestPrincipals":["example.com/sub-1"]}}]}],"action":"DENY"}"#, true),
    (r#"{"name":"p","namespace":"ns","rules":[{"to":[{"operation":{"methods":["GET","DELETE"]}}]}],"action":"DENY"}"#, true),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["temp"]}}],"to":[{"operation":{"methods":["GET","DELETE"]}}]}],"action":"DENY"}"#,
        true,
    ),
    (
        r#"{"name":"p","namespace":"ns","rules":[{"from":[{"source":{"principals":["temp"]}}],"to":[{"operation":{"ports":["8080"],"methods":["GET","DELETE"]}}]}],"action":"DENY"}"#,
        true,
    ),
];

#[test]
fn istio_and_this_filter_accept_the_same_policies() {
    for (policy, accepts) in CASES {
        let provider = r#"{"name": "my-custom-authz", "cluster": "authz"}"#;
        let configuration = format!(r#"{{"policies": [{policy}], "providers": [{provider}]}}"#);
        let started = Tester::native::<Authorizer>().configuration(&configuration).start();
        match started {
            Ok(_) => assert!(accepts, "Istio refuses {policy}"),
            Err(error) => assert!(!accepts, "Istio accepts {policy}: {error}"),
        }
    }
}
