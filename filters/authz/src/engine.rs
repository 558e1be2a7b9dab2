//! All policies of a workload, and what they come to: `CUSTOM`, then `DENY`, then `ALLOW`.

use weir_filter_matching::any_reading;
use weir_sdk::{Counter, Refusal};

use crate::config::{Action, Authz, Policy, Readings};
use crate::facts::Facts;
use crate::rules::Rule;
use crate::trust::TrustDomains;

/// The policies, compiled.
#[derive(Debug)]
pub(crate) struct Engine {
    policies: Vec<Compiled>,
    /// Allowed because there is no `ALLOW` policy.
    allowed: Counter,
    /// Refused because no `ALLOW` policy matched.
    unmatched: Counter,
    would_be_unmatched: Counter,
    all_readings: bool,
}

#[derive(Debug)]
struct Compiled {
    action: Action,
    dry_run: bool,
    /// Each with its name for the log.
    rules: Vec<(Rule, String)>,
    matched: Counter,
    /// With the action `CUSTOM`.
    provider: String,
}

/// What the policies come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'e> {
    /// By this rule, or because no `ALLOW` policy is there.
    Allowed(Option<&'e str>),
    /// By this rule, or because no `ALLOW` policy matched.
    Denied(Option<&'e str>),
}

/// What is asked about: a request, or a connection that is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Connection,
}

impl Engine {
    pub(crate) fn new(config: &Authz) -> Result<Self, Refusal> {
        let trust = TrustDomains::new(&config.trust_domain, &config.trust_domain_aliases);
        let all_readings = config.readings == Readings::All;
        let mut policies = Vec::new();
        for (at, policy) in config.policies.iter().enumerate() {
            policies.push(Compiled::new(policy, &trust, all_readings).map_err(|refusal| refusal.within(&format!("policies[{at}]")))?);
        }
        let counter = |verdict: &str| Counter::define("weir_authz_requests_total", &[("verdict", verdict)]);
        Ok(Self {
            policies,
            allowed: counter("allowed_by_none")?,
            unmatched: counter("denied_by_none")?,
            would_be_unmatched: counter("would_be_denied_by_none")?,
            all_readings,
        })
    }

    /// The provider that a `CUSTOM` policy wants asked, and the rule.
    pub(crate) fn custom(&self, facts: &Facts<'_>, kind: Kind) -> Option<(&str, &str)> {
        let mut found = None;
        self.for_readings(facts, kind, |path| {
            let policies = self.policies.iter().filter(|policy| policy.action == Action::Custom);
            found = policies.filter_map(|policy| Some((policy, policy.matching(facts, kind, path)?))).next();
            found.is_some()
        });
        found.map(|(policy, rule)| {
            policy.matched.increment();
            (policy.provider.as_str(), rule)
        })
    }

    /// What all policies but those come to, and counts it.
    pub(crate) fn judge(&self, facts: &Facts<'_>, kind: Kind) -> Verdict<'_> {
        self.shadow(facts, kind);
        let mut verdict = (Verdict::Allowed(None), None);
        // Every reading has to be allowed; the first that is not decides.
        self.for_readings(facts, kind, |path| {
            verdict = self.judge_path(facts, kind, path);
            matches!(verdict.0, Verdict::Denied(_))
        });
        let by_none = if matches!(verdict.0, Verdict::Allowed(_)) { self.allowed } else { self.unmatched };
        verdict.1.unwrap_or(by_none).increment();
        verdict.0
    }

    fn for_readings(&self, facts: &Facts<'_>, kind: Kind, mut test: impl FnMut(&[u8]) -> bool) -> bool {
        match (kind, self.all_readings) {
            (Kind::Connection, _) => test(b""),
            (Kind::Request, true) => any_reading(facts.path(), test),
            (Kind::Request, false) => test(facts.path()),
        }
    }

    fn judge_path(&self, facts: &Facts<'_>, kind: Kind, path: &[u8]) -> (Verdict<'_>, Option<Counter>) {
        let of = |action: Action| self.policies.iter().filter(move |policy| policy.action == action && !policy.dry_run);
        for policy in of(Action::Deny) {
            if let Some(rule) = policy.matching(facts, kind, path) {
                return (Verdict::Denied(Some(rule)), Some(policy.matched));
            }
        }
        if of(Action::Allow).next().is_none() {
            return (Verdict::Allowed(None), None);
        }
        match of(Action::Allow).find_map(|policy| Some((policy.matching(facts, kind, path)?, policy.matched))) {
            Some((rule, matched)) => (Verdict::Allowed(Some(rule)), Some(matched)),
            None => (Verdict::Denied(None), None),
        }
    }

    /// Counts and logs what only counts: audits, and dry runs.
    fn shadow(&self, facts: &Facts<'_>, kind: Kind) {
        let mut allows = None;
        for policy in self.policies.iter().filter(|policy| policy.dry_run || policy.action == Action::Audit) {
            let mut matched = None;
            self.for_readings(facts, kind, |path| {
                matched = policy.matching(facts, kind, path);
                // A refusal needs one reading, an allowance all of them.
                matched.is_some() == (policy.action != Action::Allow)
            });
            if policy.action == Action::Allow {
                allows = Some(allows.unwrap_or(false) || matched.is_some());
            }
            if let Some(rule) = matched {
                policy.matched.increment();
                weir_sdk::info!("{} {rule}", if policy.action == Action::Audit { "audit:" } else { "dry run: matched" });
            }
        }
        if allows == Some(false) {
            self.would_be_unmatched.increment();
            weir_sdk::info!("dry run: would be denied, as no ALLOW policy matches");
        }
    }
}

impl Compiled {
    fn new(policy: &Policy, trust: &TrustDomains, all_readings: bool) -> Result<Self, Refusal> {
        if policy.name.is_empty() {
            return Err(Refusal::at("name", "a policy needs a name: it is what is counted and logged"));
        }
        let word = match (policy.action, policy.dry_run) {
            (Action::Allow, true) => "would_allow",
            (Action::Deny, true) => "would_deny",
            (_, true) => return Err(Refusal::at("dryRun", "only policies with the action ALLOW or DENY can run dry")),
            (Action::Allow, false) => "allowed",
            (Action::Deny, false) => "denied",
            (Action::Audit, false) => "audited",
            (Action::Custom, false) => "asked",
        };
        if policy.rules.is_empty() && matches!(policy.action, Action::Deny | Action::Custom | Action::Audit) {
            return Err(Refusal::at("rules", "without rules it would never match; only an ALLOW policy may have none, and allows nothing"));
        }
        let provider = match (&policy.provider, policy.action) {
            (Some(provider), Action::Custom) if !provider.name.is_empty() => provider.name.clone(),
            (_, Action::Custom) => return Err(Refusal::at("provider.name", "a policy with the action CUSTOM needs a provider")),
            (Some(_), _) => return Err(Refusal::at("provider", "only a policy with the action CUSTOM has a provider")),
            (None, _) => String::new(),
        };
        let mut rules = Vec::new();
        for (at, rule) in policy.rules.iter().enumerate() {
            let compiled = Rule::new(rule, policy, trust, all_readings).map_err(|refusal| refusal.within(&format!("rules[{at}]")))?;
            rules.push((compiled, format!("ns[{}]-policy[{}]-rule[{at}]", policy.namespace, policy.name)));
        }
        let labels = [("namespace", policy.namespace.as_str()), ("policy", &policy.name), ("verdict", word)];
        let matched = Counter::define("weir_authz_policy_matches_total", &labels)?;
        Ok(Self { action: policy.action, dry_run: policy.dry_run, rules, matched, provider })
    }

    /// The name of the first rule that matches.
    fn matching(&self, facts: &Facts<'_>, kind: Kind, path: &[u8]) -> Option<&str> {
        let matches = |rule: &Rule| match kind {
            Kind::Request => rule.matches(facts, path),
            Kind::Connection => rule.matches_connection(facts, self.action),
        };
        self.rules.iter().find(|(rule, _)| matches(rule)).map(|(_, name)| name.as_str())
    }
}
