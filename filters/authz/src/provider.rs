//! External authorization: another service is asked over HTTP, and answers by its status.
//!
//! 200 lets the request go on; a status of 500 and above, like no answer at all, is an error, for which the provider's configuration says what to do;
//! anything else is the refusal, which the client gets. The service sees the request's method, path and host, never its body.

use std::rc::Rc;
use std::time::Duration;

use weir_sdk::{Answer, Flow, Handle, Refusal, Stream};

use crate::config::Provider;

/// The longest timeout that can be written.
const LONGEST: Duration = Duration::from_secs(60);

/// A provider that can be asked.
#[derive(Debug)]
pub(crate) struct Asked {
    config: Provider,
    timeout: Duration,
    status_on_error: u16,
}

/// What a provider said.
pub(crate) enum Said {
    Go,
    /// The client was answered.
    Answered(Flow),
}

impl Asked {
    pub(crate) fn new(config: Provider) -> Result<Self, Refusal> {
        let timeout =
            duration(&config.timeout.0).ok_or_else(|| Refusal::at("timeout", "it is no time of 1ms to 60s, such as 250ms or 2s"))?;
        let status_on_error = config.status_on_error.unwrap_or(403);
        if !(400..=599).contains(&status_on_error) {
            return Err(Refusal::at("statusOnError", format!("{status_on_error} is no status of 400 to 599")));
        }
        if config.name.is_empty() || config.cluster.is_empty() {
            return Err(Refusal::new("name and cluster must not be empty"));
        }
        if !config.path_prefix.is_empty() && !config.path_prefix.starts_with('/') {
            return Err(Refusal::at("pathPrefix", "it must begin with a slash"));
        }
        Ok(Self { config, timeout, status_on_error })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Asks about the stream's request.
    pub(crate) async fn ask(self: &Rc<Self>, handle: &Handle) -> Said {
        let config = &self.config;
        let call = handle.with(|stream| {
            let request = stream.request();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let path = format!("{}{}", config.path_prefix, text(stream.path()));
            let mut call = handle.call(&config.cluster, &text(stream.method()), &path).timeout(self.timeout);
            call = call.header(":authority", stream.authority()).header("content-length", "0");
            let seen = config.include_request_headers_in_check.iter().map(String::as_str).chain(["authorization"]);
            for name in seen {
                if let Some(value) = request.get(name) {
                    call = call.header(&name.to_ascii_lowercase(), value);
                }
            }
            config
                .include_additional_headers_in_check
                .iter()
                .fold(call, |call, (name, value)| call.header(&name.to_ascii_lowercase(), value))
        });
        let Some(call) = call else { return Said::Answered(Flow::Pause) };
        let answer = call.send().await;
        let said = handle.with(|stream| match answer {
            Ok(answer) if answer.status() == 200 => self.allow(stream, &answer),
            Ok(answer) if (1..500).contains(&answer.status()) => self.refuse(stream, &answer),
            Ok(answer) => self.fail(stream, &format!("status {}", answer.status())),
            Err(error) => self.fail(stream, &error.to_string()),
        });
        said.unwrap_or(Said::Answered(Flow::Pause))
    }

    fn allow(&self, stream: &Stream<'_>, answer: &Answer) -> Said {
        for name in &self.config.headers_to_upstream_on_allow {
            if let Some(value) = answer.header(name)
                && stream.request().set(&name.to_ascii_lowercase(), value).is_err()
            {
                return self.fail(stream, "its headers could not be set");
            }
        }
        Said::Go
    }

    fn refuse(&self, stream: &Stream<'_>, answer: &Answer) -> Said {
        let wanted = &self.config.headers_to_downstream_on_deny;
        let mut reply = stream.reply(answer.status()).details("ext_authz_denied").body(answer.body());
        for (name, value) in answer.headers() {
            let name = String::from_utf8_lossy(name);
            // What belongs to that connection is not this one's.
            let is_own = name.starts_with(':') || ["connection", "content-length", "transfer-encoding", "keep-alive"].contains(&&*name);
            let is_wanted = wanted.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(&name)) || name == "content-type";
            if !is_own && is_wanted {
                reply = reply.header(&*name, value);
            }
        }
        Said::Answered(reply.send())
    }

    fn fail(&self, stream: &Stream<'_>, why: &str) -> Said {
        weir_sdk::warn!("the authorization provider {:?} could not be asked: {why}", self.config.name);
        match self.config.fail_open {
            true => Said::Go,
            false => Said::Answered(stream.reply(self.status_on_error).details("ext_authz_error").send()),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => Duration::from_millis(millis.parse().ok()?),
        (_, Some(seconds)) => Duration::from_secs(seconds.parse().ok()?),
        _ => return None,
    };
    (!time.is_zero() && time <= LONGEST).then_some(time)
}
