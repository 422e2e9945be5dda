//! Requests to the job service. The token and the keys of a body are never printed, and never sent where they can be read.

use std::path::Path;
use std::time::{Duration, Instant};

use dray_account::send::{Failure, Request, retry_after};
use dray_account::{Endpoint, Http, Policy, Tokens};
use dray_engine::report::{Kind, Problem, Stop};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::Api;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 4 << 20;
/// Pause between two questions after an operation, when the service names none.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest time for which an operation is polled. Orders are checked within minutes.
const OPERATION_MAX: Duration = Duration::from_secs(3600);
/// Shortest pause, whatever the service names.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Endpoint and credentials of the service.
#[derive(Debug)]
pub struct Service {
    endpoint: Endpoint,
    tokens: Tokens,
    http: Http,
}

/// Answer of the service.
#[derive(Debug, Default)]
struct Reply {
    status: u16,
    body: Value,
    /// Address at which the operation can be polled.
    location: Option<String>,
    wait: Option<Duration>,
}

impl Service {
    /// A client for `endpoint`; certificates in `ca_file` are trusted in place of the system's.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(
        endpoint: Endpoint,
        ca_file: Option<&Path>,
        tokens: Tokens,
        stop: Option<Stop>,
    ) -> Result<Self, Problem> {
        // A person waits for it: an outage is not outlived.
        let policy =
            Policy { patience: Duration::from_secs(120), stall: Duration::from_secs(120), ..Policy::default() };
        let mut http = Http::new(&endpoint, ca_file, policy)?;
        if let Some(stop) = stop {
            http = http.until(stop);
        }
        Ok(Self { endpoint, tokens, http })
    }

    /// The URL of a path below the endpoint; the path comes from files and answers, and cannot change the host.
    fn address(&self, path: &str, version: &str) -> Result<Url, Problem> {
        let odd = path.split('/').any(|segment| matches!(segment, "." | ".."));
        if !path.starts_with('/')
            || path.starts_with("//")
            || odd
            || path.contains(['\\', '?', '#'])
            || path.chars().any(char::is_control)
        {
            let problem =
                Problem::new(Kind::Usage, "is no path of a resource").value(path.escape_default().to_string());
            return Err(problem.advice("the job's file or description was changed: make the job again"));
        }
        let mut url = self.endpoint.url().clone();
        url.set_path(&format!("{}{path}", self.endpoint.path()));
        url.query_pairs_mut().append_pair("api-version", version);
        Ok(url)
    }

    /// The address that an answer names, if it is of this service: the token goes nowhere else.
    fn elsewhere(&self, location: &str) -> Result<Url, Problem> {
        let own = self.endpoint.url();
        let url = own.join(location).ok().filter(|url| {
            url.origin() == own.origin()
                && url.username().is_empty()
                && url.password().is_none()
                && url.path().starts_with(self.endpoint.path())
        });
        url.ok_or_else(|| {
            let shown: String = location.split('?').next().unwrap_or_default().chars().take(200).collect();
            Problem::new(Kind::Refused, "the service names an address of its operation where the token does not go")
                .value(shown.escape_default().to_string())
                .advice("ask for the job with `dray job show FILE --submit`, or name that address with --endpoint")
        })
    }

    /// Sends one request; tries again only what changes nothing.
    fn send(&self, method: &str, url: &Url, body: Option<&str>, name: &str) -> Result<Reply, Problem> {
        let is_question = matches!(method, "GET" | "HEAD");
        let failed = |failure: Failure| {
            if failure.is_stopped {
                return failure.problem();
            }
            Problem::new(Kind::Environment, format!("the service was not reached: {}", failure.message))
                .value(format!("{method} {}{name}", self.endpoint.base()))
                .advice("nothing is known of what the service did: `dray job show FILE --submit` asks it")
        };
        let once = || -> Result<Reply, (Failure, Option<Duration>)> {
            let denied = |problem: Problem| {
                let message = problem.what;
                let failure = Failure { status: Some(401), code: "NoToken".into(), message, ..no_failure(name) };
                (failure, None)
            };
            let token = self.tokens.authorization().map_err(denied)?;
            let plain = |text: &str| Zeroizing::new(text.to_owned());
            let request = Request {
                method,
                uri: plain(url.as_str()),
                name,
                headers: vec![
                    ("Authorization".into(), token),
                    ("Accept".into(), plain("application/json")),
                    ("Content-Type".into(), plain("application/json")),
                ],
                body: body.map(str::as_bytes),
            };
            let mut answer = self.http.once(&request).map_err(|failure| (failure, None))?;
            let bytes = answer.bytes(ANSWER_MAX).map_err(|failure| (failure, None))?;
            let wait = retry_after(&answer.headers);
            let reply = Reply {
                status: answer.status,
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
                location: answer.header("location").map(str::to_owned),
                wait,
            };
            if is_question && matches!(reply.status, 408 | 429 | 500 | 502 | 503 | 504) {
                let failure = Failure { status: Some(reply.status), ..no_failure(name) };
                return Err((failure, wait));
            }
            Ok(reply)
        };
        let reply = if is_question { self.http.persist(|_| once()) } else { once().map_err(|(failure, _)| failure) };
        match reply {
            Ok(reply) => Ok(reply),
            Err(failure) if failure.code == "NoToken" => Err(Problem::new(Kind::Usage, failure.message).advice(
                "`az login`, or `az account get-access-token --query accessToken -o tsv > token` and --token-file token",
            )),
            Err(Failure { status: Some(status), .. }) => {
                Err(refusal(status, &Value::Null, method, name))
            }
            Err(failure) => Err(failed(failure)),
        }
    }

    /// Sends a request; gives the answer, `Null` when it has no body. What the service only queues is asked after until it
    /// is over: its errors come later, and elsewhere.
    ///
    /// # Errors
    /// The service does not answer, or refuses: with its own code and message.
    pub fn call(&self, api: Api, method: &str, path: &str, body: Option<&str>) -> Result<Value, Problem> {
        let mut url = self.address(path, api.version())?;
        // Without it a Data Box job comes without what is known of its drives.
        if api == Api::DataBox && method == "GET" {
            url.query_pairs_mut().append_pair("$expand", "details");
        }
        let reply = self.send(method, &url, body, path)?;
        if !(200..300).contains(&reply.status) {
            return Err(refusal(reply.status, &reply.body, method, path));
        }
        if reply.status != 202 {
            return Ok(reply.body);
        }
        self.await_operation(reply, path)
    }

    /// Asks after an operation until it is over; gives what it came to.
    fn await_operation(&self, first: Reply, path: &str) -> Result<Value, Problem> {
        let unknown = |what: &str| {
            Problem::new(Kind::Environment, what).value(path.to_owned()).advice(
                "the service has taken the request and not carried it out yet: `dray job show FILE --submit` asks it",
            )
        };
        let started = Instant::now();
        let Some(mut location) = first.location else {
            return Err(unknown("the service queued the request, and does not say where it can be polled"));
        };
        let mut wait = first.wait;
        loop {
            let pause = wait.unwrap_or(PAUSE).max(PAUSE_MIN);
            if started.elapsed() + pause > OPERATION_MAX {
                return Err(unknown("the service has not carried the request out for an hour"));
            }
            self.http.sleep(pause);
            let url = self.elsewhere(&location)?;
            let reply = self.send("GET", &url, None, url.path())?;
            match reply.status {
                202 => {
                    location = reply.location.unwrap_or(location);
                    wait = reply.wait;
                }
                200..=299 => {
                    // Some operations answer 200 whatever they came to, and say it inside.
                    let state = reply.body["status"].as_str().unwrap_or_default();
                    if matches!(state, "Failed" | "Canceled" | "Cancelled") {
                        return Err(refusal(0, &reply.body, "operation", path));
                    }
                    if matches!(state, "InProgress" | "Running" | "Accepted" | "Pending") {
                        wait = reply.wait;
                        continue;
                    }
                    return Ok(reply.body);
                }
                status => return Err(refusal(status, &reply.body, "operation", path)),
            }
        }
    }
}

fn no_failure(name: &str) -> Failure {
    Failure {
        status: None,
        code: String::new(),
        message: String::new(),
        request: name.to_owned(),
        is_stopped: false,
        earlier: 0,
    }
}

/// A refusal by the service; status 0: in an answer that is no error by its status.
fn refusal(status: u16, body: &Value, method: &str, path: &str) -> Problem {
    let reported =
        |error: &Value, key: &str| -> String { error[key].as_str().unwrap_or_default().chars().take(400).collect() };
    let error = &body["error"];
    let (code, message) = (reported(error, "code"), reported(error, "message"));
    let mut said = match (code.is_empty(), message.is_empty()) {
        (true, true) => String::new(),
        _ => format!(": {code}: {message}"),
    };
    for detail in error["details"].as_array().into_iter().flatten().take(5) {
        let (code, message) = (reported(detail, "code"), reported(detail, "message"));
        if !code.is_empty() || !message.is_empty() {
            said.push_str(&format!("; {code}: {message}"));
        }
    }
    let advice = match status {
        300..=399 => "the answer points elsewhere, where token and keys do not go: name that address with --endpoint",
        401 | 403 => "get a new token, and check that it may write in this resource group",
        404 => "check subscription, resource group and name",
        409 | 412 => "the job is in another state than expected: ask with `dray job show FILE --submit`",
        429 | 500..=599 => "try again later; the request can be repeated",
        _ => "mend what the service names, and send it again",
    };
    let what = match status {
        0 => format!("the service abandoned the queued request{said}"),
        _ if method == "operation" => format!("the service abandoned the queued request (HTTP {status}){said}"),
        _ => format!("the service said no (HTTP {status}){said}"),
    };
    Problem::new(Kind::Refused, what).value(format!("{method} {path}")).advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(base: &str) -> Service {
        let endpoint = Endpoint::parse(base, "--endpoint", "https://management.azure.com").expect("good");
        Service::new(endpoint, None, Tokens::given("t").expect("a token"), None).expect("a service")
    }

    #[test]
    fn an_operation_is_asked_after_where_the_token_may_go() {
        let here = service("https://management.azure.com");
        for good in [
            "https://management.azure.com/subscriptions/s/providers/Microsoft.DataBox/locations/westus/operationResults/1?t=1&c=M",
            "/subscriptions/s/operationResults/1",
        ] {
            assert!(here.elsewhere(good).is_ok(), "{good}");
        }
        for bad in [
            "http://management.azure.com/x",
            "https://management.azure.com:444/x",
            "https://management.azure.com.evil.com/x",
            "https://user@management.azure.com/x",
            "//evil.com/x",
            "https://evil.com/",
        ] {
            let problem = here.elsewhere(bad).map(|url| url.to_string()).expect_err(bad);
            assert_eq!(problem.kind, Kind::Refused);
        }
        assert!(service("https://localhost/base").elsewhere("https://localhost/other").is_err());
    }

    #[test]
    fn what_the_service_says_is_said_with_its_details() {
        let body = serde_json::json!({ "error": { "code": "OrderFailed", "message": "no",
            "details": [{ "code": "StorageAccountNotAccessible", "message": "locked" }] } });
        let problem = refusal(400, &body, "operation", "/x");
        assert!(
            problem.what.contains("queued") && problem.what.contains("StorageAccountNotAccessible: locked"),
            "{problem}"
        );
    }

    #[test]
    fn a_path_never_changes_the_host() {
        let address =
            |path: &str| service("https://management.azure.com").address(path, "1").map(|url| url.to_string());
        assert_eq!(
            address("/providers/X/locations/West US").expect("good"),
            "https://management.azure.com/providers/X/locations/West%20US?api-version=1"
        );
        let based = service("https://localhost/base/").address("/s/(1)", "1").expect("good");
        assert_eq!(based.as_str(), "https://localhost/base/s/(1)?api-version=1");
        for bad in [
            "@evil.com/x",
            ".evil.com/x",
            ":80@evil.com",
            "//evil.com",
            "/a/../../x",
            "/x?y",
            "/x#y",
            "/a\\b",
            "",
            "/a\n",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
