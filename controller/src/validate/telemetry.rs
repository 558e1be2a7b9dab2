//! Telemetry: providers, shares, tags and expressions.

use super::{At, cel, policy, values};
use crate::api::istio::Telemetry;
use crate::api::istio::telemetry::{CustomTag, MetricOverride, ProviderRef, TagOperation, Tracing};

pub(super) fn check(at: &At<'_>, spec: &Telemetry) {
    policy::check_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.tracing.len() > 1 {
        at.key("tracing").no_effect("only the first counts");
    }
    at.each("tracing", &spec.tracing, check_tracing);
    at.each("metrics", &spec.metrics, |at, metrics| {
        check_providers(at, &metrics.providers);
        at.each("overrides", &metrics.overrides, check_override);
        values::check_duration(at, "reportingInterval", metrics.reporting_interval);
    });
    at.each("accessLogging", &spec.access_logging, |at, logging| {
        check_providers(at, &logging.providers);
        at.some("filter", logging.filter.as_ref(), |at, filter| {
            if !filter.expression.is_empty() {
                at.key("expression").check(cel::syntax(&filter.expression));
            }
        });
    });
}

fn check_providers(at: &At<'_>, providers: &[ProviderRef]) {
    at.each("providers", providers, |at, provider| {
        if provider.name.is_empty() {
            at.missing("name is missing");
        }
    });
}

fn check_tracing(at: &At<'_>, tracing: &Tracing) {
    if tracing.providers.len() > 1 {
        at.key("providers").no_effect("only the first counts");
    }
    check_providers(at, &tracing.providers);
    at.some("randomSamplingPercentage", tracing.random_sampling_percentage.as_ref(), |at, share| at.check(values::share(*share)));
    let tags = at.key("customTags");
    for (name, tag) in &tracing.custom_tags {
        if name.is_empty() {
            tags.key(name).invalid("a tag needs a name");
        }
        check_tag(&tags.key(name), tag);
    }
}

fn check_tag(at: &At<'_>, tag: &CustomTag) {
    at.at_most_one(&[
        ("literal", tag.literal.is_some()),
        ("environment", tag.environment.is_some()),
        ("header", tag.header.is_some()),
        ("formatter", tag.formatter.is_some()),
    ]);
    for (key, literal) in [("literal", &tag.literal), ("formatter", &tag.formatter)] {
        at.some(key, literal.as_ref(), |at, literal| {
            if literal.value.is_empty() {
                at.missing("value is missing");
            }
        });
    }
    for (key, named) in [("environment", &tag.environment), ("header", &tag.header)] {
        at.some(key, named.as_ref(), |at, named| {
            if named.name.is_empty() {
                at.missing("name is missing");
            }
        });
    }
}

fn check_override(at: &At<'_>, change: &MetricOverride) {
    let tags = at.key("tagOverrides");
    for (name, tag) in &change.tag_overrides {
        let here = tags.key(name);
        if name.is_empty() {
            here.no_effect("a tag needs a name");
        }
        match tag.operation {
            TagOperation::Upsert if tag.value.is_empty() => here.missing("UPSERT needs a value"),
            TagOperation::Remove if !tag.value.is_empty() => here.key("value").conflict("REMOVE has no value"),
            _ => {}
        }
    }
    at.some("match", change.matches.as_ref(), |at, matches| {
        at.at_most_one(&[("metric", matches.metric.is_some()), ("customMetric", matches.custom_metric.is_some())]);
        if matches.custom_metric.as_deref() == Some("") {
            at.key("customMetric").invalid("it must not be empty");
        }
    });
}
