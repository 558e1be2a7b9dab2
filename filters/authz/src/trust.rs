//! Trust domains: one mesh may have had several names, and a principal of one is a principal of all.

/// The domain that means the mesh's own, whatever its name is.
const OWN: &str = "cluster.local";

/// The mesh's trust domain and its aliases.
#[derive(Debug)]
pub(crate) struct TrustDomains(Vec<String>);

impl TrustDomains {
    pub(crate) fn new(own: &str, aliases: &[String]) -> Self {
        Self(std::iter::once(own.to_owned()).chain(aliases.iter().cloned()).collect())
    }

    /// Principals, each with all names of its trust domain if that is the mesh's.
    pub(crate) fn replace(&self, principals: &[String]) -> Vec<String> {
        let mut all = Vec::new();
        for principal in principals {
            let (domain, rest) = principal.split_once('/').unwrap_or(("*", ""));
            let is_meant = |known: &String| is_suffix_of(domain, known);
            // Not of the form DOMAIN/ns/NAMESPACE/sa/NAME: it names no domain.
            if domain == "*" || principal.split('/').count() != 5 || !(domain == OWN || self.0.iter().any(is_meant)) {
                all.push(principal.clone());
                continue;
            }
            for known in &self.0 {
                let one = if is_meant(known) { principal.clone() } else { format!("{known}/{rest}") };
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }

    /// Domains, with all names of the mesh's in the place of one.
    pub(crate) fn expand(&self, domains: &[String]) -> Vec<String> {
        let mut all = Vec::new();
        for domain in domains {
            let names = if self.0.contains(domain) { &self.0[..] } else { std::slice::from_ref(domain) };
            all.extend(names.iter().cloned());
        }
        all
    }
}

/// Whether a domain is of a pattern that may begin with a star.
fn is_suffix_of(pattern: &str, domain: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => domain.ends_with(end),
        None => pattern == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_of_the_mesh_has_all_its_names() {
        let trust = TrustDomains::new("td1", &["td2".to_owned(), "some-td".to_owned()]);
        for (written, meant) in [
            ("td1/ns/foo/sa/bar", vec!["td1/ns/foo/sa/bar", "td2/ns/foo/sa/bar", "some-td/ns/foo/sa/bar"]),
            ("cluster.local/ns/foo/sa/bar", vec!["td1/ns/foo/sa/bar", "td2/ns/foo/sa/bar", "some-td/ns/foo/sa/bar"]),
            ("other/ns/foo/sa/bar", vec!["other/ns/foo/sa/bar"]),
            ("*/ns/foo/sa/bar", vec!["*/ns/foo/sa/bar"]),
            ("*-td/ns/foo/sa/bar", vec!["td1/ns/foo/sa/bar", "td2/ns/foo/sa/bar", "*-td/ns/foo/sa/bar"]),
            ("sa/bar", vec!["sa/bar"]),
            ("*", vec!["*"]),
        ] {
            assert_eq!(trust.replace(&[written.to_owned()]), meant, "{written}");
        }
        assert_eq!(trust.expand(&["td2".to_owned(), "x".to_owned()]), ["td1", "td2", "some-td", "x"]);
    }
}
