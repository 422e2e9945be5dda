//! Requests to the service. The token and the keys of a body are never printed, and never sent where they can be read.

use std::time::Duration;

use dray_engine::report::{Kind, Problem};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Api;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 4 << 20;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where requests go, and on whose behalf.
pub struct Service {
    endpoint: String,
    token: Zeroizing<String>,
    agent: ureq::Agent,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("endpoint", &self.endpoint).field("token", &"<secret>").finish_non_exhaustive()
    }
}

impl Service {
    /// `endpoint` without a slash at its end, `https` unless it is this machine.
    ///
    /// # Errors
    /// When the token would travel in the clear.
    pub fn new(endpoint: &str, token: Zeroizing<String>) -> Result<Self, Problem> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let plain = endpoint.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
        let usage = |what: &str, advice: &str| {
            Problem::new(Kind::Usage, what).column("--endpoint").value(endpoint.clone()).advice(advice.to_owned())
        };
        match plain {
            Some("127.0.0.1" | "localhost") => {}
            Some(_) => return Err(usage("would carry token and keys in the clear", "use https://")),
            None if !endpoint.starts_with("https://") => {
                return Err(usage("is no address", "for example https://management.azure.com"));
            }
            None => {}
        }
        let good = |b: u8| b.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(good) {
            return Err(Problem::new(Kind::Usage, "the bearer token is empty or has blanks in it")
                .advice("`az account get-access-token --query accessToken -o tsv > FILE`, then --token-file FILE"));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Nobody else is to get the token.
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("dray/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { endpoint, token, agent })
    }

    /// Sends a request; gives the answer, `Null` when it has no body.
    ///
    /// # Errors
    /// When the service does not answer, or says no: with its own code and message.
    pub fn call(&self, api: Api, method: &str, path: &str, body: Option<&str>) -> Result<Value, Problem> {
        let url = format!("{}{}?api-version={}", self.endpoint, path.replace(' ', "%20"), api.version());
        let failed = |what: String| {
            Problem::new(Kind::Environment, what)
                .value(format!("{method} {}{path}", self.endpoint))
                .advice("nothing is known of what the service did: `dray job show FILE --submit` asks it")
        };
        let bearer = Zeroizing::new(format!("Bearer {}", *self.token));
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", bearer.as_str())
            .header("Accept", "application/json")
            .header("Content-Type", "application/json");
        let answer = match body {
            Some(body) => request.body(body).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)),
        };
        let mut answer = answer.map_err(|error| failed(format!("the service was not reached: {error}")))?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_MAX)
            .read_to_string()
            .map_err(|error| failed(format!("the service's answer could not be read: {error}")))?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let told = |key: &str| value["error"][key].as_str().unwrap_or_default().chars().take(400).collect::<String>();
        let (code, message) = (told("code"), told("message"));
        let said = if code.is_empty() && message.is_empty() { String::new() } else { format!(": {code}: {message}") };
        let advice = match status {
            401 | 403 => "get a new token, and check that it may write in this resource group",
            404 => "check subscription, resource group and name",
            409 | 412 => "the job is in another state than expected: ask with `dray job show FILE --submit`",
            429 | 500..=599 => "try again later; the request can be repeated",
            _ => "mend what the service names, and send it again",
        };
        Err(Problem::new(Kind::Refused, format!("the service said no (HTTP {status}){said}"))
            .value(format!("{method} {path}"))
            .advice(advice))
    }
}
