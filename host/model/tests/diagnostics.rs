//! Every mistake that the model knows, each with the place, the path and the help that it is reported with: and with nothing else,
//! for one mistake is one report.

use std::collections::BTreeSet;

use weir_model::config::{Cluster, FilterChain, Listener};
use weir_model::diagnostic::{Code, Diagnostic, render};
use weir_model::validate::{Context, load, validate_resource};

/// Around a snippet, which stands on line 2: what makes it a whole configuration, and the path to it.
const FRAMES: [(&str, &str, &str); 13] = [
    ("below", "node:\n$\n", ""),
    ("file", "#\n$\n", ""),
    ("listener", "listeners:\n- {name: l, address: '127.0.0.1:0', $}\n", "listeners[0]."),
    (
        "bare listener",
        "listeners:\n- {branches: [{tcp: {clusters: [{name: a}]}}], $}\nclusters: [{name: a, endpoints: {}}]\n",
        "listeners[0].",
    ),
    (
        "branch",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{$}]}\nsecrets: [{name: k, keyPair: {certificateChain: {file: c}, privateKey: {file: k}}}, {name: r, trustRoots: {certificates: {file: c}}}]\n",
        "listeners[0].branches[0].",
    ),
    (
        "match",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{match: {$}, tcp: {clusters: [{name: a}]}}]}\nclusters: [{name: a, endpoints: {}}]\n",
        "listeners[0].branches[0].match.",
    ),
    (
        "tls",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{tcp: {clusters: [{name: a}]}, tls: {$}}]}\nclusters: [{name: a, endpoints: {}}]\nsecrets: [{name: k, keyPair: {certificateChain: {file: c}, privateKey: {file: k}}}, {name: r, trustRoots: {certificates: {file: c}}}]\n",
        "listeners[0].branches[0].tls.",
    ),
    (
        "http",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{http: {$, defaultAction: {respond: {status: 200}}}}]}\n",
        "listeners[0].branches[0].http.",
    ),
    (
        "action",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{http: {filterChain: c, defaultAction: {$}}}]}\nclusters: [{name: alpha, endpoints: {}}, {name: beta, endpoints: {}}]\nfilterChains: [{name: c, filters: [{name: early, module: {builtin: headers}}, {name: late, phase: traffic, module: {builtin: headers}, variants: {strict: 1}}]}]\n",
        "listeners[0].branches[0].http.defaultAction.",
    ),
    (
        "forward",
        "listeners:\n- {name: l, address: '127.0.0.1:0', branches: [{http: {defaultAction: {forward: {clusters: [{name: alpha}], $}}}}]}\nclusters: [{name: alpha, endpoints: {}}]\n",
        "listeners[0].branches[0].http.defaultAction.forward.",
    ),
    ("filter", "filterChains:\n- {name: c, filters: [{name: f, $}]}\n", "filterChains[0].filters[0]."),
    ("cluster", "clusters:\n- {name: c, $}\nsecrets: [{name: r, trustRoots: {certificates: {file: c}}}]\n", "clusters[0]."),
    ("secret", "secrets:\n- {name: s, $}\n", "secrets[0]."),
];

fn context() -> Context {
    Context { builtins: Some(vec!["headers".into(), "router".into()]), discovery: false }
}

fn check(text: &str) -> Vec<Diagnostic> {
    load([("conf.yaml", text.as_bytes())], &context()).1
}

/// Frame, snippet, code, path within the frame, and what message and help must say.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

fn run(cases: &[Case]) -> (String, BTreeSet<&'static str>) {
    let mut wrong = String::new();
    for (frame, snippet, code, path, says) in cases {
        let Some((_, frame, start)) = FRAMES.iter().find(|(name, ..)| name == frame) else {
            wrong.push_str(&format!("there is no frame {frame}\n"));
            continue;
        };
        let text = frame.replace('$', snippet);
        let found = check(&text);
        let path = format!("{start}{path}");
        let path = path.trim_end_matches('.');
        let good = matches!(&found[..], [one] if one.code.as_str() == *code && one.path == path && one.line() == 2 && one.column() > 0 && format!("{} / {}", one.message, one.help).contains(says));
        if !good {
            wrong.push_str(&format!("--- {snippet}\nexpected {code} at {path}, saying {says:?}, found:\n{}\n", render(&found, false)));
        }
    }
    (wrong, cases.iter().map(|case| case.2).collect())
}

const READING: &[Case] = &[
    (
        "listener",
        "adress: x, branches: [{http: {defaultAction: {respond: {status: 200}}}}]",
        "unknown-field",
        "adress",
        "did you mean `address`?",
    ),
    (
        "listener",
        "timeouts: {idle: 5s}, branches: [{http: {defaultAction: {respond: {status: 200}}}}]",
        "unknown-field",
        "timeouts",
        "further in: `branches[].http.timeouts`",
    ),
    (
        "listener",
        "qqq: 1, branches: [{http: {defaultAction: {respond: {status: 200}}}}]",
        "unknown-field",
        "qqq",
        "the fields here are `name`, `address`",
    ),
    ("file", "<<: {}", "unknown-field", "<<", "merge keys"),
    ("file", "apiVersion: v1", "unknown-field", "apiVersion", "a Kubernetes object"),
    ("file", "{workers: 1, workers: 1}", "duplicate-key", "workers", ""),
    ("file", "node: {labels: {a: b, a: c}}", "duplicate-key", "node.labels.a", "the first is on line 2"),
    ("file", "listeners: {}", "wrong-type", "listeners", "a list belongs here, not a mapping"),
    ("file", "node: [a]", "wrong-type", "node", "a mapping of fields belongs here, not a list"),
    ("file", "node: {labels: [a]}", "wrong-type", "node.labels", "a mapping belongs here, not a list"),
    ("file", "node: {id: [a]}", "wrong-type", "node.id", "a text belongs here, not a list"),
    ("file", "node: {[a]: b}", "wrong-type", "node", "the name of a field is a text"),
    ("file", "workers: many", "wrong-type", "workers", "a number belongs here, not a text"),
    ("file", "workers: 1_000", "wrong-type", "workers", "write `1000`"),
    ("file", "workers: 4 threads", "wrong-type", "workers", "the field's name says the unit"),
    ("file", "workers: 1.5", "wrong-type", "workers", "a whole number"),
    ("file", "workers: -1", "out-of-range", "workers", "0 to 4294967295"),
    ("file", "workers: 4294967296", "out-of-range", "workers", "out of range"),
    ("forward", "hash: [{sourceAddress: yes}]", "wrong-type", "hash[0].sourceAddress", "write `true`, without quotes"),
    ("file", "log: {format: jsn}", "unknown-value", "log.format", "did you mean `json`? The values are `auto`, `text`, `json`."),
    ("file", "log: {format: xml}", "unknown-value", "log.format", "the values are `auto`, `text`, `json`"),
    ("file", "log: {format: 1}", "unknown-value", "log.format", "the values are"),
    ("file", "drainTimeout: 45", "invalid-duration", "drainTimeout", "write `45s` for seconds or `45ms`"),
    ("file", "drainTimeout: soon", "invalid-duration", "drainTimeout", "`250ms`"),
    ("file", "drainTimeout: 1d", "invalid-duration", "drainTimeout", "the units of durations are"),
    ("file", "drainTimeout: [1s]", "wrong-type", "drainTimeout", "a duration belongs here"),
    ("file", "admin:", "empty-value", "admin", "write `admin: {}`"),
    (
        "file",
        "listeners: [{name: l, address: '127.0.0.1:0', branches: [{http: {}}]}, ]\nadmin: {allowedHosts: [, a]}",
        "yaml-syntax",
        "",
        "",
    ),
    ("file", "node: {labels: {a: }}", "empty-value", "node.labels.a", "`\"\"` is an empty text"),
    ("filter", "module: {inline: 'a*'}", "invalid-base64", "module.inline", "'*' is no character of base64"),
    ("filter", "module: {inline: 'abcde'}", "invalid-base64", "module.inline", "cut or padded wrongly"),
    ("filter", "module: {builtin: headers, file: x}", "conflict", "module.file", "exclude each other"),
    ("filter", "module: {builtin: headers}, config: {a: 9007199254740993}", "out-of-range", "config.a", "in quotes"),
    ("filter", "module: {builtin: headers}, config: {a: .nan}", "out-of-range", "config.a", "JSON cannot hold"),
    ("filter", "module: {builtin: headers}, config: {a: 1, a: 2}", "duplicate-key", "config.a", "twice"),
    ("file", "node: !mine {}", "unknown-tag", "node", "`!mine`"),
    ("file", "workers: !!int x", "unknown-tag", "workers", "`!!int`"),
    ("file", "a: b: c", "yaml-syntax", "", "look at the indentation"),
    ("below", "\tid: a", "yaml-syntax", "", "not with tabs"),
    ("file", "node: *x", "yaml-syntax", "", "anchor"),
];

const LISTENERS: &[Case] = &[
    ("bare listener", "name: '', address: '127.0.0.1:0'", "missing", "name", "a name is missing"),
    ("bare listener", "name: l", "missing", "address", "an address is missing"),
    ("bare listener", "name: l, address: ':80'", "invalid-address", "address", "write `0.0.0.0:PORT`"),
    ("bare listener", "name: l, address: '10.0.0.1'", "invalid-address", "address", "the port is missing"),
    ("bare listener", "name: l, address: 'localhost:80'", "invalid-address", "address", "write `127.0.0.1:80`"),
    ("bare listener", "name: l, address: 'a.example:80'", "invalid-address", "address", "not a name"),
    ("bare listener", "name: l, address: 'unix:/a', originalDestination: redirect", "conflict", "originalDestination", "Unix socket"),
    (
        "bare listener",
        "name: l, address: '127.0.0.1:0', proxyProtocol: {trusted: [10.0.0.0/33]}",
        "invalid-range",
        "proxyProtocol.trusted[0]",
        "0 to 32",
    ),
    ("bare listener", "name: l, address: '127.0.0.1:0', proxyProtocol: {mode: optional}", "insecure", "proxyProtocol", "load balancers"),
    ("bare listener", "name: l, address: '127.0.0.1:0', detectTimeout: 0s", "out-of-range", "detectTimeout", "leave it out"),
    ("bare listener", "name: l, address: '127.0.0.1:0', detectTimeout: -1s", "out-of-range", "detectTimeout", "not negative"),
    ("listener", "branches: []", "missing", "branches", "what connections meet"),
    ("listener", "branches: [{name: b}]", "missing", "branches[0]", "write `http: {}` or `tcp: {}`"),
    ("listener", "branches: [{http: {}}]", "no-effect", "branches[0].http", "answered 404"),
    (
        "branch",
        "name: b, http: {defaultAction: {respond: {status: 200}}}}, {name: b, match: {transport: tls}, http: {defaultAction: {respond: {status: 200}}}",
        "duplicate-name",
        "",
        "",
    ),
    ("match", "destinationPorts: [0]", "out-of-range", "destinationPorts[0]", "from 1 to 65535"),
    ("match", "sourceRanges: [10.0.0]", "invalid-range", "sourceRanges[0]", "not an IP address"),
    ("match", "serverNames: ['*']", "invalid-name", "serverNames[0]", "leave `serverNames` out"),
    ("match", "serverNames: ['a.*.b']", "invalid-name", "serverNames[0]", "`*.example.com`"),
    ("match", "serverNames: ['a.b:443']", "invalid-name", "serverNames[0]", "no port"),
    ("match", "applicationProtocols: ['']", "invalid-name", "applicationProtocols[0]", "1 to 255"),
    ("match", "transport: plaintext, serverNames: [a.b]", "conflict", "transport", "write `transport: tls`"),
    (
        "branch",
        "match: {transport: plaintext}, tls: {certificates: [k]}, http: {defaultAction: {respond: {status: 200}}}",
        "conflict",
        "tls",
        "never begins",
    ),
    ("branch", "tcp: {}", "missing", "tcp.clusters", "where to"),
    ("branch", "tcp: {filterChain: c, clusters: [{name: k}]}", "unknown-reference", "", ""),
    ("tls", "certificates: []", "missing", "certificates", "certificates: [NAME]"),
    ("tls", "certificates: [kk]", "unknown-reference", "certificates[0]", "did you mean `k`?"),
    ("tls", "certificates: [r]", "wrong-kind", "certificates[0]", "trusted roots, not a key pair"),
    ("tls", "certificates: [k], minVersion: tls13, maxVersion: tls12", "conflict", "minVersion", "above"),
    ("tls", "certificates: [k], handshakeTimeout: 0s", "out-of-range", "handshakeTimeout", ""),
    ("tls", "certificates: [k], clientAuth: {mode: required}", "missing", "clientAuth.trustRoots", "name a secret"),
    ("tls", "certificates: [k], clientAuth: {trustRoots: r}", "conflict", "clientAuth.mode", "mode: required"),
    (
        "tls",
        "certificates: [k], clientAuth: {mode: required, trustRoots: k}",
        "wrong-kind",
        "clientAuth.trustRoots",
        "a key pair, not trusted roots",
    ),
    (
        "tls",
        "certificates: [k], clientAuth: {mode: required, trustRoots: r, trustDomains: ['spiffe://a']}",
        "invalid-name",
        "clientAuth.trustDomains[0]",
        "the trust domain alone",
    ),
    ("tls", "certificates: [k], clientAuth: {mode: required, trustRoots: r, names: [{}]}", "missing", "clientAuth.names[0]", "`exact`"),
    (
        "tls",
        "certificates: [k], clientAuth: {mode: required, trustRoots: r, names: [{exact: a, kind: url}]}",
        "unknown-value",
        "clientAuth.names[0].kind",
        "`uri`",
    ),
    ("http", "filterChain: x", "unknown-reference", "filterChain", "add it under `filterChains`"),
    ("http", "limits: {headerCount: 5000}", "out-of-range", "limits.headerCount", "from 0 to 1024"),
    ("http", "timeouts: {idle: -5s}", "out-of-range", "timeouts.idle", "not negative"),
    ("http", "timeouts: {request: 0s}", "out-of-range", "timeouts.request", "makes no sense"),
    ("http", "serverHeader: {mode: overwrite}", "missing", "serverHeader.value", "write `value: NAME`"),
    ("http", "serverHeader: {value: x}", "no-effect", "serverHeader.value", "mode: overwrite"),
    ("http", "exemptPaths: [healthz]", "invalid-path", "exemptPaths[0]", "begins with `/`"),
    ("http", "actions: [{respond: {status: 200}}]", "missing", "actions[0].name", "a name is missing"),
    (
        "http",
        "actions: [{name: a, respond: {status: 200}}, {name: a, respond: {status: 200}}]",
        "duplicate-name",
        "actions[1].name",
        "the first is listeners[0].branches[0].http.actions[0].name",
    ),
];

const ROUTES: &[Case] = &[
    ("action", "name: x", "missing", "", "`forward`, `redirect` and `respond`"),
    ("action", "forward: {clusters: []}", "missing", "forward.clusters", "clusters: [{name: NAME}]"),
    ("action", "forward: {clusters: [{name: alpa}]}", "unknown-reference", "forward.clusters[0].name", "did you mean `alpha`?"),
    ("action", "forward: {clusters: [{name: zzzzz}]}", "unknown-reference", "forward.clusters[0].name", "the clusters are `alpha`, `beta`"),
    ("action", "forward: {clusters: [{name: alpha}, {name: beta}]}", "missing", "forward.clusters", "weight: 1"),
    (
        "action",
        "forward: {clusters: [{name: alpha, weight: 4294967295}, {name: beta, weight: 1}]}",
        "out-of-range",
        "forward.clusters",
        "divide",
    ),
    ("action", "forward: {clusters: [{name: alpha}], clusterHeader: x-c}", "conflict", "forward.clusterHeader", "exclude"),
    ("action", "forward: {clusterHeader: 'x c'}", "invalid-header", "forward.clusterHeader", "letters, digits"),
    ("action", "respond: {}", "missing", "respond.status", "status: 200"),
    ("action", "respond: {status: 99}", "out-of-range", "respond.status", "from 200 to 599"),
    ("action", "respond: {status: 204, body: x}", "no-effect", "respond.body", "no body"),
    ("action", "redirect: {}", "missing", "redirect", "where the client is already"),
    ("action", "redirect: {host: a, status: 300}", "out-of-range", "redirect.status", "301"),
    ("action", "redirect: {scheme: htps}", "unknown-value", "redirect.scheme", "did you mean `https`?"),
    ("action", "redirect: {host: 'a/b'}", "invalid-name", "redirect.host", "no host"),
    ("action", "redirect: {port: 65536}", "out-of-range", "redirect.port", "65535"),
    (
        "action",
        "respond: {status: 200}, requestHeaders: {set: [{name: ':path', value: x}]}",
        "invalid-header",
        "requestHeaders.set[0].name",
        "write `path` in `forward`",
    ),
    (
        "action",
        "respond: {status: 200}, requestHeaders: {add: [{name: Host, value: x}]}",
        "invalid-header",
        "requestHeaders.add[0].name",
        "write `host`",
    ),
    (
        "action",
        "respond: {status: 200}, responseHeaders: {remove: [Transfer-Encoding]}",
        "invalid-header",
        "responseHeaders.remove[0]",
        "belongs to the connection",
    ),
    (
        "action",
        "respond: {status: 200}, responseHeaders: {set: [{name: a, value: \"x\\r\\ny\"}]}",
        "invalid-header",
        "responseHeaders.set[0].value",
        "one line",
    ),
    (
        "action",
        "respond: {status: 200}, responseHeaders: {set: [{name: a, value: '100%'}]}",
        "invalid-header",
        "responseHeaders.set[0].value",
        "write `%%`",
    ),
    (
        "action",
        "respond: {status: 200}, responseHeaders: {set: [{name: 'a b', value: x}]}",
        "invalid-header",
        "responseHeaders.set[0].name",
        "no name of a header",
    ),
    ("action", "respond: {status: 200}, filters: {lat: {}}", "unknown-reference", "filters.lat", "did you mean `late`?"),
    ("action", "respond: {status: 200}, filters: {early: {}}", "conflict", "filters.early", "phase: traffic"),
    (
        "action",
        "respond: {status: 200}, filters: {late: {variant: strct}}",
        "unknown-reference",
        "filters.late.variant",
        "did you mean `strict`?",
    ),
    (
        "http",
        "actions: [{name: a, respond: {status: 200}, filters: {x: {}}}]",
        "unknown-reference",
        "actions[0].filters.x",
        "there is no chain",
    ),
    ("forward", "timeout: -1s", "out-of-range", "timeout", "not negative"),
    ("forward", "path: {}", "missing", "path", "`full`, `prefix` and `regex`"),
    ("forward", "path: {full: a}", "invalid-path", "path.full", "begins with `/`"),
    ("forward", "path: {full: '/a?b'}", "invalid-path", "path.full", "'?'"),
    ("forward", "path: {prefix: {from: '/a', to: b}}", "invalid-path", "path.prefix.to", ""),
    ("forward", "path: {regex: {pattern: '(', substitution: x}}", "invalid-regex", "path.regex.pattern", "unclosed group"),
    ("forward", "path: {regex: {pattern: '(?=a)', substitution: x}}", "invalid-regex", "path.regex.pattern", "take forever"),
    ("forward", "path: {regex: {pattern: '((a{100}){100}){100}', substitution: x}}", "invalid-regex", "path.regex.pattern", "repeat less"),
    (
        "forward",
        "path: {regex: {pattern: '(a)', substitution: '\\2'}}",
        "unknown-reference",
        "path.regex.substitution",
        "groups are 1 to 1",
    ),
    ("forward", "host: {}", "missing", "host", "`literal`"),
    ("forward", "host: {literal: 'http://a'}", "invalid-name", "host.literal", "example.com"),
    ("forward", "host: {endpoint: false}", "no-effect", "host.endpoint", ""),
    ("forward", "retry: {on: [5xxx]}", "unknown-value", "retry.on[0]", "did you mean `5xx`?"),
    ("forward", "retry: {on: [gateway_error]}", "unknown-value", "retry.on[0]", "did you mean `gateway-error`?"),
    ("forward", "retry: {attempts: 101}", "out-of-range", "retry.attempts", "100"),
    ("forward", "retry: {on: [retriable-status-codes], statusCodes: [99]}", "out-of-range", "retry.statusCodes[0]", ""),
    ("forward", "retry: {statusCodes: [500]}", "no-effect", "retry.statusCodes", "add `retriable-status-codes` to `on`"),
    ("forward", "retry: {on: [retriable-headers]}", "no-effect", "retry.on", "add `headers`"),
    ("forward", "retry: {backoffBase: 1s, backoffMax: 500ms}", "conflict", "retry.backoffMax", "shorter than `backoffBase`"),
    ("forward", "mirrors: [{cluster: alpha, percent: 101}]", "out-of-range", "mirrors[0].percent", "0 to 100"),
    ("forward", "mirrors: [{}]", "missing", "mirrors[0].cluster", "the name of a cluster"),
    ("forward", "hash: [{}]", "missing", "hash[0]", "`sourceAddress`"),
    ("forward", "hash: [{cookie: {name: 'a b'}}]", "invalid-name", "hash[0].cookie.name", "cookie"),
    ("forward", "hash: [{cookie: {name: a, path: '/;x'}}]", "invalid-path", "hash[0].cookie.path", ""),
    ("forward", "hash: [{cookie: {name: a, attributes: {'a b': c}}}]", "invalid-name", "hash[0].cookie.attributes[\"a b\"]", "SameSite"),
    ("forward", "hash: [{header: ''}]", "missing", "hash[0].header", ""),
    ("forward", "upgrades: ['web socket']", "invalid-name", "upgrades[0]", "websocket"),
    ("forward", "clusterNotFoundStatus: 42", "out-of-range", "clusterNotFoundStatus", ""),
];

const FILTERS: &[Case] = &[
    ("filter", "phase: traffic", "missing", "module", "module: {builtin: NAME}"),
    ("filter", "module: {}", "missing", "module", "`builtin`, `file` and `inline`"),
    ("filter", "module: {builtin: header}", "unknown-reference", "module.builtin", "did you mean `headers`?"),
    ("filter", "module: {builtin: 'builtin://headers'}", "unknown-reference", "module.builtin", "did you mean `headers`?"),
    ("filter", "module: {file: ''}", "missing", "module.file", "path"),
    ("filter", "module: {builtin: headers, sha256: abc}", "invalid-name", "module.sha256", "64 hex digits"),
    ("filter", "module: {builtin: headers}, environment: {'A=B': c}", "invalid-name", "environment[\"A=B\"]", "no `=`"),
    ("filter", "module: {builtin: headers}, upstreams: ['*', x]", "unknown-reference", "upstreams[1]", "add it under `clusters`"),
    ("filter", "module: {builtin: headers}, variants: {'': 1}", "missing", "variants", "no name"),
    ("filter", "module: {builtin: headers}, limits: {callback: 11s}", "out-of-range", "limits.callback", "at most `10s`"),
    ("filter", "module: {builtin: headers}, limits: {memoryMib: 1025}", "out-of-range", "limits.memoryMib", "from 0 to 1024"),
    ("filter", "module: {builtin: headers}}, {name: f, module: {builtin: headers}", "duplicate-name", "", ""),
];

const CLUSTERS: &[Case] = &[
    ("cluster", "protocol: http2", "missing", "", "`endpointsFrom`"),
    ("cluster", "endpointsFrom: x", "unknown-reference", "endpointsFrom", "there is no endpoints `x`"),
    (
        "cluster",
        "endpoints: {localities: [{endpoints: [{address: 'a.b:80'}]}]}",
        "invalid-address",
        "endpoints.localities[0].endpoints[0].address",
        "`dns` clusters",
    ),
    (
        "cluster",
        "endpoints: {localities: [{endpoints: [{address: '10.0.0.1:0'}]}]}",
        "invalid-address",
        "endpoints.localities[0].endpoints[0].address",
        "port 0",
    ),
    (
        "cluster",
        "endpoints: {localities: [{endpoints: [{address: '0.0.0.0:80'}]}]}",
        "invalid-address",
        "endpoints.localities[0].endpoints[0].address",
        "connect to",
    ),
    ("cluster", "endpoints: {panicThreshold: 101}", "out-of-range", "endpoints.panicThreshold", "100"),
    ("cluster", "endpoints: {localities: [{weight: 4294967295}, {weight: 1}]}", "out-of-range", "endpoints.localities", "weights"),
    ("cluster", "dns: {}", "missing", "dns.names", "look up"),
    ("cluster", "dns: {names: [{name: 'a:80', port: 80}]}", "invalid-name", "dns.names[0].name", "stands in `port`"),
    ("cluster", "dns: {names: [{name: a}]}", "missing", "dns.names[0].port", "port: 80"),
    ("cluster", "dns: {logical: true, names: [{name: a, port: 1}, {name: b, port: 1}]}", "conflict", "dns.logical", "one name"),
    ("cluster", "dns: {names: [{name: a, port: 1}], servers: ['a:53']}", "invalid-address", "dns.servers[0]", "IP address"),
    ("cluster", "originalDestination: {header: x-dst}", "insecure", "originalDestination.header", "any address"),
    ("cluster", "endpoints: {}, balancer: {maglev: {tableSize: 65536}}", "out-of-range", "balancer.maglev.tableSize", "write 65537"),
    ("cluster", "endpoints: {}, balancer: {ringHash: {minSize: 2048, maxSize: 1024}}", "conflict", "balancer.ringHash.maxSize", "2048"),
    ("cluster", "endpoints: {}, balancer: {leastRequest: {choices: 1}}", "out-of-range", "balancer.leastRequest.choices", "from 2"),
    ("cluster", "endpoints: {}, balancer: {leastRequest: {}, random: {}}", "conflict", "balancer.random", "`leastRequest` and `random`"),
    ("cluster", "endpoints: {}, balancer: {slowStart: {}}", "missing", "balancer.slowStart.window", "window: 30s"),
    (
        "cluster",
        "endpoints: {}, balancer: {slowStart: {window: 1s, aggression: 0}}",
        "out-of-range",
        "balancer.slowStart.aggression",
        "1 is linear",
    ),
    (
        "cluster",
        "endpoints: {}, balancer: {subsets: [{keys: [a, b]}, {keys: [b, a]}]}",
        "duplicate-name",
        "balancer.subsets[1].keys",
        "twice",
    ),
    ("cluster", "endpoints: {}, balancer: {subsetFallback: anyEndpoint}", "no-effect", "balancer.subsetFallback", "`subsets`"),
    ("cluster", "endpoints: {}, protocol: negotiate", "no-effect", "protocol", "add `tls`"),
    ("cluster", "endpoints: {}, connectTimeout: 0s", "out-of-range", "connectTimeout", ""),
    ("cluster", "endpoints: {}, proxyProtocol: 3", "out-of-range", "proxyProtocol", "0 to 2"),
    ("cluster", "endpoints: {}, sourceAddress: '10.0.0.1:80'", "invalid-address", "sourceAddress", "without a port"),
    ("cluster", "endpoints: {}, tls: {trustRoots: x}", "unknown-reference", "tls.trustRoots", "`r`"),
    ("cluster", "endpoints: {}, tls: {insecureSkipVerify: true}", "insecure", "tls.insecureSkipVerify", "not verified"),
    ("cluster", "endpoints: {}, tls: {sni: 'a b'}", "invalid-name", "tls.sni", "host name"),
    (
        "cluster",
        "endpoints: {}, circuitBreakers: {retryBudget: {percent: .nan}}",
        "out-of-range",
        "circuitBreakers.retryBudget.percent",
        "percentage",
    ),
    ("cluster", "endpoints: {}, outlierDetection: {maxEjectionPercent: 101}", "out-of-range", "outlierDetection.maxEjectionPercent", ""),
    (
        "cluster",
        "endpoints: {}, outlierDetection: {baseEjectionTime: 2s, maxEjectionTime: 1s}",
        "conflict",
        "outlierDetection.maxEjectionTime",
        "",
    ),
    ("cluster", "endpoints: {}, healthChecks: [{}]", "missing", "healthChecks[0]", "`http`, `grpc` and `tcp`"),
    ("cluster", "endpoints: {}, healthChecks: [{http: {path: x}}]", "invalid-path", "healthChecks[0].http.path", ""),
    (
        "cluster",
        "endpoints: {}, healthChecks: [{http: {expected: [{from: 300, to: 200}]}}]",
        "conflict",
        "healthChecks[0].http.expected[0].to",
        "below",
    ),
    ("cluster", "endpoints: {}, healthChecks: [{tcp: {}, interval: 0s}]", "out-of-range", "healthChecks[0].interval", ""),
    ("secret", "keyPair: {privateKey: {file: k}}", "missing", "keyPair.certificateChain", "file: PATH"),
    ("secret", "trustRoots: {certificates: {inline: x}}", "invalid-pem", "trustRoots.certificates", "BEGIN CERTIFICATE"),
    ("secret", "trustRoots: {certificates: {}}", "missing", "trustRoots.certificates", "inlineBytes"),
    ("file", "secrets: [{name: s}]", "missing", "secrets[0]", "keyPair"),
];

const PROCESS: &[Case] = &[
    ("file", "admin: {address: '0.0.0.0:15000'}", "insecure", "admin.address", "127.0.0.1:15000"),
    ("file", "admin: {address: 'localhost'}", "invalid-address", "admin.address", "port is missing"),
    ("file", "workers: 5000", "out-of-range", "workers", "1024"),
    ("file", "drainTimeout: -1s", "out-of-range", "drainTimeout", "negative"),
    ("file", "log: {level: 'info,upstream=verbose'}", "unknown-value", "log.level", "the levels are"),
    ("file", "node: {id: a}\ndiscovery: {}", "missing", "", ""),
    ("file", "discovery: {addresses: ['http://a:1']}", "missing", "node", "node.id"),
    ("file", "{node: {id: a}, discovery: {addresses: ['a:1']}}", "invalid-address", "discovery.addresses[0]", "`http://HOST:PORT`"),
    ("file", "{node: {id: a}, discovery: {addresses: ['http://a:1'], tokenFile: /t}}", "insecure", "discovery.addresses[0]", "https"),
    ("file", "{node: {id: a}, discovery: {addresses: ['http://a:1'], tls: {}}}", "no-effect", "discovery.tls", "https"),
    (
        "file",
        "{node: {id: a}, discovery: {addresses: ['https://a:1'], tls: {trustRoots: x}}}",
        "unknown-reference",
        "discovery.tls.trustRoots",
        "secrets",
    ),
    (
        "file",
        "{node: {id: a}, discovery: {addresses: ['http://a:1'], backoffMin: 2s, backoffMax: 1s}}",
        "conflict",
        "discovery.backoffMax",
        "shorter",
    ),
    (
        "file",
        "clusters: [{name: a, endpoints: {}}, {name: a, endpoints: {}}]",
        "duplicate-name",
        "clusters[1].name",
        "clusters[0].name, at conf.yaml:2:19",
    ),
    (
        "file",
        "listeners: [{name: a, address: '127.0.0.1:80', branches: [{http: {defaultAction: {respond: {status: 200}}}}]}, {name: b, address: '127.0.0.1:80', branches: [{http: {defaultAction: {respond: {status: 200}}}}]}]",
        "conflict",
        "listeners[1].address",
        "the listener `a`",
    ),
    (
        "file",
        "listeners: [{name: a, address: '127.0.0.1:80', branches: [{match: {destinationPorts: [80, 81]}, http: {defaultAction: {respond: {status: 200}}}}, {match: {destinationPorts: [81]}, http: {defaultAction: {respond: {status: 200}}}}]}]",
        "equal-match",
        "listeners[0].branches[1].match",
        "`listeners[0].branches[0]` serves too",
    ),
    (
        "file",
        "listeners: [{name: a, address: '127.0.0.1:80', defaultBranch: {match: {}, http: {defaultAction: {respond: {status: 200}}}}}]",
        "no-effect",
        "listeners[0].defaultBranch.match",
        "remove `match`",
    ),
];

/// Cases whose place or path the table's frame cannot express: only their code is compared.
fn loosely(case: &Case) -> bool {
    case.3.is_empty() && case.4.is_empty()
}

#[test]
fn every_mistake_is_reported_once_where_it_is() {
    let all: Vec<&[Case]> = vec![READING, LISTENERS, ROUTES, FILTERS, CLUSTERS, PROCESS];
    let (mut wrong, mut seen) = (String::new(), BTreeSet::new());
    for cases in &all {
        let exact: Vec<Case> = cases.iter().filter(|case| !loosely(case)).copied().collect();
        let (more, codes) = run(&exact);
        wrong.push_str(&more);
        seen.extend(codes);
    }
    assert!(wrong.is_empty(), "{wrong}");
    for (frame, snippet, code, ..) in all.iter().flat_map(|cases| cases.iter()).filter(|case| loosely(case)) {
        let (_, frame, _) = FRAMES.iter().find(|(name, ..)| name == frame).expect("a frame");
        let found = check(&frame.replace('$', snippet));
        assert!(found.iter().any(|one| one.code.as_str() == *code), "{snippet}\n{}", render(&found, false));
    }
    // The rest needs more than a line, and has tests of its own.
    seen.extend(["not-utf8", "too-large", "set-twice", "too-many-problems"]);
    let missing: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).filter(|code| !seen.contains(code)).collect();
    assert_eq!(missing, [""; 0], "every code has a case");
}

#[test]
fn all_problems_come_at_once() {
    let text = "workers: x\nlisteners:\n- name: a\n  adress: 127.0.0.1:80\n  detectTimeout: 5\n  branches:\n  - http:\n      defaultAction:\n        forward:\n          clusters: [{name: nobody}]\n";
    let found = check(text);
    let listing: Vec<(&str, &str, u32, u32)> = found.iter().map(|one| (one.code.as_str(), &*one.path, one.line(), one.column())).collect();
    let expected = [
        ("wrong-type", "workers", 1, 10),
        ("unknown-field", "listeners[0].adress", 4, 3),
        ("invalid-duration", "listeners[0].detectTimeout", 5, 18),
        ("missing", "listeners[0].address", 3, 3),
        ("unknown-reference", "listeners[0].branches[0].http.defaultAction.forward.clusters[0].name", 10, 29),
    ];
    assert_eq!(listing, expected, "{}", render(&found, false));
}

#[test]
fn pieces_count_on_and_name_both_places() {
    let one = "workers: 1\nclusters: [{name: a, endpoints: {}}]\n";
    let two = "workers: 2\nclusters:\n- {name: b, endpoints: {}, protocol: x}\n- {name: a, endpoints: {}}\n";
    let (fragment, found) = load([("one.yaml", one.as_bytes()), ("two.yaml", two.as_bytes())], &context());
    assert_eq!(fragment.bootstrap.clusters.len(), 3);
    let listing: Vec<String> =
        found.iter().map(|one| format!("{} {} {}:{} {}", one.code, one.path, one.file(), one.line(), one.help)).collect();
    assert_eq!(
        listing,
        [
            "unknown-value clusters[1].protocol two.yaml:3 the values are `http1`, `http2`, `negotiate`, `likeDownstream`",
            "set-twice workers two.yaml:1 the first is at one.yaml:1:10; remove one of them",
            "duplicate-name clusters[2].name two.yaml:4 the first is clusters[0].name, at one.yaml:2:19; rename one",
        ]
    );
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let found = load([("conf.yaml", &b"a: b\nc: \xff\n"[..])], &context()).1;
    assert_eq!((found.len(), found[0].code, found[0].line(), found[0].column()), (1, Code::NotUtf8, 2, 4));
    let found = load([("conf.yaml", &[b' '; (16 << 20) + 1][..])], &context()).1;
    assert_eq!((found.len(), found[0].code), (1, Code::TooLarge));
}

#[test]
fn problems_are_not_without_end() {
    let found = check(&format!("listeners:\n{}", "- {name: a, x: y}\n".repeat(5000)));
    assert!(found.len() <= 2002, "{}", found.len());
    assert!(found.iter().any(|one| one.code == Code::TooMany));
    let references = format!(
        "filterChains: [{{name: c, filters: [{{name: f, module: {{builtin: headers}}, upstreams: [{}]}}]}}]",
        "nobody, ".repeat(5000)
    );
    let found = check(&references);
    assert_eq!(found.len(), 1001);
    assert_eq!(found[1000].code, Code::TooMany);
}

#[test]
fn with_discovery_references_may_come_later() {
    let text = "node: {id: a}\ndiscovery: {addresses: ['http://a:1']}\nlisteners: [{name: l, address: '127.0.0.1:0', branches: [{http: {filterChain: later, defaultAction: {forward: {clusters: [{name: later}]}}}}]}]\n";
    assert_eq!(check(text), []);
}

#[test]
fn a_resource_is_checked_alone() {
    let parsed =
        weir_model::yaml::parse("conf.yaml", "listeners: [{name: l, address: ':80', branches: [{http: {filterChain: elsewhere}}]}]");
    let listener: &Listener = &parsed.fragment.bootstrap.listeners[0];
    let found = validate_resource(listener, &context());
    assert_eq!(
        found.iter().map(|one| (&*one.path, one.code, one.place.is_none())).collect::<Vec<_>>(),
        [("address", Code::InvalidAddress, true)]
    );
    let found = validate_resource(&Cluster::default(), &context());
    assert_eq!(found.iter().map(|one| &*one.path).collect::<Vec<_>>(), ["name", ""]);
    assert_eq!(validate_resource(&FilterChain { name: "c".into(), ..FilterChain::default() }, &context()), []);
}

#[test]
fn many_branches_are_told_apart_in_time() {
    let branch =
        |index: usize| format!("{{match: {{destinationPorts: [{index}]}}, http: {{defaultAction: {{respond: {{status: 200}}}}}}}}, ");
    let branches: String = (1..5000).map(branch).collect();
    let text = |more: &str| format!("listeners: [{{name: l, address: '127.0.0.1:0', branches: [{branches}{more}]}}]");
    assert_eq!(check(&text("")), []);
    let again = check(&text(&branch(7)));
    assert_eq!((again.len(), again[0].code), (1, Code::EqualMatch));
    let many = |count: usize| (1..=count).map(|index| format!("10.0.{}.{}/32", index / 256, index % 256)).collect::<Vec<_>>().join(", ");
    let product = format!(
        "{{match: {{destinationRanges: [{0}], sourceRanges: [{0}]}}, http: {{defaultAction: {{respond: {{status: 200}}}}}}}}",
        many(300)
    );
    let found = check(&text(&product));
    assert_eq!((found.len(), found[0].code), (1, Code::TooLarge));
}
