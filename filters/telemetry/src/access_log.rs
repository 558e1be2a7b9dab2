//! Access logs: which requests have a line, how it looks, and where it goes.
//!
//! A format is compiled once: texts, and operators that name the attributes they need. All that a request's lines need is read together. What always holds:
//! one request is one line, in text and in JSON; a request that a log leaves out on purpose is not logged by the proxy in its place.

use std::fmt::Write;
use std::rc::Rc;

use serde_json::Value;
use weir_sdk::{AttributeSet, Plugin, Refusal, Stream, Values};

use crate::config::{self, StatusRange, Telemetry};
use crate::export::{Exporter, Wire};
use crate::operator::{Operator, Shown, json_string, write_json, write_text};
use crate::proto::{self, Any};
use crate::span::{Active, resource, service_name};
use crate::trace::Dice;

/// Istio's line.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% \
    %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

/// A piece of a text. An operator says whether it stands in quotes of its own.
#[derive(Debug)]
enum Piece {
    Literal(String),
    Operator(Operator, bool),
}

/// Texts and operators, one after the other.
#[derive(Debug)]
struct Text(Vec<Piece>);

impl Text {
    fn parse(format: &str, set: &mut AttributeSet) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let (mut literal, mut rest) = (String::new(), format.trim_end_matches('\n'));
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            // What stands in parentheses may have percent signs of its own: `%START_TIME(%s)%`.
            let mut depth = 0_usize;
            let end = after.find(|letter| {
                match letter {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                letter == '%' && depth == 0
            });
            let (text, after) =
                end.map(|end| (&after[..end], &after[end + 1..])).ok_or("an operator does not end: write `%%` for a percent sign")?;
            let operator = Operator::parse(text, set)?;
            let is_quoted = literal.ends_with('"') && after.starts_with('"');
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Operator(operator, is_quoted));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    fn write(&self, values: &Values<'_>, trace: Option<&str>, out: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Operator(operator, is_quoted) => write_text(&operator.value(values, trace), *is_quoted, out),
            }
        }
    }
}

/// A value of a line of JSON.
#[derive(Debug)]
enum Json {
    /// As it is.
    Fixed(String),
    /// One operator: its value's own type.
    One(Operator),
    Text(Text),
    /// Keys are JSON strings already.
    Object(Vec<(String, Self)>),
    List(Vec<Self>),
}

impl Json {
    fn parse(value: &Value, set: &mut AttributeSet) -> Result<Self, Refusal> {
        Ok(match value {
            Value::String(format) => {
                let mut text = Text::parse(format, set).map_err(Refusal::new)?;
                match (text.0.pop(), text.0.is_empty()) {
                    (Some(Piece::Operator(operator, _)), true) => Self::One(operator),
                    (last, _) => {
                        text.0.extend(last);
                        Self::Text(text)
                    }
                }
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| field(name, value, set));
                Self::Object(fields.collect::<Result<_, _>>()?)
            }
            Value::Array(list) => {
                let parse = |(at, value)| Self::parse(value, set).map_err(|refusal: Refusal| refusal.within(&format!("[{at}]")));
                Self::List(list.iter().enumerate().map(parse).collect::<Result<_, _>>()?)
            }
            other => Self::Fixed(other.to_string()),
        })
    }

    fn write(&self, values: &Values<'_>, trace: Option<&str>, out: &mut String) {
        match self {
            Self::Fixed(text) => out.push_str(text),
            Self::One(operator) => write_json(&operator.value(values, trace), out),
            Self::Text(text) => {
                let mut inner = String::new();
                for piece in &text.0 {
                    match piece {
                        Piece::Literal(text) => inner.push_str(text),
                        Piece::Operator(operator, _) => match operator.value(values, trace) {
                            Shown::Absent => inner.push('-'),
                            Shown::Number(number) => {
                                let _ = write!(inner, "{number}");
                            }
                            Shown::Text(text) => inner.push_str(&text),
                            Shown::Time(text) => inner.push_str(&text),
                            Shown::Json(text) => inner.push_str(text),
                        },
                    }
                }
                json_string(&inner, out);
            }
            Self::Object(fields) => {
                let mut open = '{';
                for (name, value) in fields {
                    out.push(open);
                    out.push_str(name);
                    out.push(':');
                    value.write(values, trace, out);
                    open = ',';
                }
                out.push_str(if open == '{' { "{}" } else { "}" });
            }
            Self::List(list) => {
                let mut open = '[';
                for value in list {
                    out.push(open);
                    value.write(values, trace, out);
                    open = ',';
                }
                out.push_str(if open == '[' { "[]" } else { "]" });
            }
        }
    }
}

fn field(name: &str, value: &Value, set: &mut AttributeSet) -> Result<(String, Json), Refusal> {
    let mut key = String::new();
    json_string(name, &mut key);
    Ok((key, Json::parse(value, set).map_err(|refusal| refusal.within(name))?))
}

#[derive(Debug)]
enum Format {
    Text(Text),
    Json(Json),
}

#[derive(Debug)]
enum Sink {
    File(weir_sdk::AccessLog),
    Otlp(Rc<Exporter>),
}

/// Which requests a log has.
#[derive(Debug)]
struct When {
    errors_only: bool,
    status: Vec<StatusRange>,
    min_duration: Option<i64>,
    percent: Option<f64>,
}

/// Where what conditions need stands.
#[derive(Debug)]
struct Places {
    time: usize,
    code: usize,
    flags: usize,
    duration: usize,
    grpc_status: usize,
}

/// An access log.
#[derive(Debug)]
pub(crate) struct Log {
    format: Format,
    sink: Sink,
    when: When,
    places: Places,
    dice: Dice,
}

impl Log {
    /// Puts the attributes that it needs into `set`.
    pub(crate) fn compile(config: &Telemetry, log: &config::AccessLog, set: &mut AttributeSet) -> Result<Self, Refusal> {
        let format = match (&log.text, &log.json) {
            (Some(_), Some(_)) => return Err(Refusal::new("only one of text and json may be written")),
            (text, None) => {
                let text = Text::parse(text.as_deref().unwrap_or(DEFAULT), set);
                Format::Text(text.map_err(|cause| Refusal::at("text", cause))?)
            }
            (None, Some(fields)) => {
                let fields = fields.iter().map(|(name, value)| field(name, value, set));
                Format::Json(Json::Object(fields.collect::<Result<_, _>>().map_err(|refusal| refusal.within("json"))?))
            }
        };
        let sink = match (&log.path, &log.otlp) {
            (Some(path), None) => Sink::File(weir_sdk::AccessLog::open(path).map_err(|refusal| refusal.within("path"))?),
            (None, Some(collector)) => {
                let resource = resource(config, &service_name(config));
                Sink::Otlp(Exporter::new(Wire::OtlpLogs, collector, resource, config.report).map_err(|refusal| refusal.within("otlp"))?)
            }
            _ => return Err(Refusal::new("write where it goes: one of path and otlp")),
        };
        if log.when.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            return Err(Refusal::at("when.percent", "write a number from 0 to 100"));
        }
        if let Some(at) = log.when.status.iter().position(|range| range.from > range.to) {
            return Err(Refusal::at(format!("when.status[{at}]"), "`from` is greater than `to`"));
        }
        Ok(Self {
            format,
            sink,
            when: When {
                errors_only: log.when.errors_only,
                status: log.when.status.clone(),
                min_duration: log.when.min_duration_ms.map(|millis| i64::try_from(millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX)),
                percent: log.when.percent,
            },
            places: Places {
                time: set.add(&["request", "time"]),
                code: set.add(&["response", "code"]),
                flags: set.add(&["response", "flags"]),
                duration: set.add(&["request", "duration"]),
                grpc_status: set.add(&["response", "grpc_status"]),
            },
            dice: Dice::new(weir_sdk::random()),
        })
    }

    /// Logs a stream that is over, if it is one that this log has.
    pub(crate) fn write<S>(&self, stream: &Stream<'_, S>, values: &Values<'_>, active: Option<&Active>) {
        let trace = active.map(Active::trace_id);
        let has = self.has(values);
        let render = |line: &mut String| match &self.format {
            Format::Text(text) => text.write(values, trace.as_deref(), line),
            Format::Json(json) => json.write(values, trace.as_deref(), line),
        };
        match &self.sink {
            Sink::File(log) => {
                // A host that takes no line has said so when the log was opened.
                let _ = match has {
                    true => log.write(stream, render),
                    false => log.leave_out(stream),
                };
            }
            Sink::Otlp(exporter) if has => {
                let mut line = String::new();
                render(&mut line);
                exporter.push(self.record(values, active, &line));
            }
            Sink::Otlp(_) => {}
        }
    }

    pub(crate) fn flush(&self, plugin: &Plugin) {
        if let Sink::Otlp(exporter) = &self.sink {
            exporter.flush(plugin);
        }
    }

    fn has(&self, values: &Values<'_>) -> bool {
        let (when, places) = (&self.when, &self.places);
        let code = values.integer(places.code).unwrap_or(0);
        let failed = || {
            code >= 400
                || values.integer(places.flags).unwrap_or(0) != 0
                || values.integer(places.grpc_status).is_some_and(|status| status != 0)
        };
        let in_range = |range: &StatusRange| (i64::from(range.from)..=i64::from(range.to)).contains(&code);
        (!when.errors_only || failed())
            && (when.status.is_empty() || when.status.iter().any(in_range))
            && when.min_duration.is_none_or(|least| values.integer(places.duration).unwrap_or(0) >= least)
            && when.percent.is_none_or(|percent| self.dice.holds(percent))
    }

    /// `opentelemetry.proto.logs.v1.LogRecord`.
    fn record(&self, values: &Values<'_>, active: Option<&Active>, line: &str) -> Vec<u8> {
        let time = |at: usize| values.integer(at).and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0);
        let code = values.integer(self.places.code).unwrap_or(0);
        let (severity, name) = if code >= 500 { (17, "ERROR") } else { (9, "INFO") };
        let mut out = Vec::with_capacity(256 + line.len());
        proto::fixed64(&mut out, 1, time(self.places.time));
        proto::number(&mut out, 2, severity);
        proto::bytes(&mut out, 3, name.as_bytes());
        proto::message(&mut out, 5, |body| proto::bytes(body, 1, line.as_bytes()));
        proto::tag(&mut out, 6, "http.status_code", Any::Number(code));
        if let Some((trace, span)) = active.map(Active::ids) {
            proto::fixed32(&mut out, 8, 1);
            proto::bytes(&mut out, 9, &trace.to_be_bytes());
            proto::bytes(&mut out, 10, &span.to_be_bytes());
        }
        proto::fixed64(&mut out, 11, time(self.places.time).saturating_add(time(self.places.duration)));
        out
    }
}
