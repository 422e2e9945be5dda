//! One request, repeated until it is answered: growing pauses, `Retry-After`, and a time limit.
//!
//! A try fails when no byte moves for a while, however long the whole takes: a slow line is not a dead one. An endpoint
//! that has answered once may be away for long and come back; one that never has is given up soon.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dray_engine::report::{Advice, Kind, Problem, Setting, Stop};
use ureq::http::HeaderMap;
use ureq::tls::TlsConfig;

use crate::endpoint::{Endpoint, roots};
use crate::names::Names;

/// Longest answer that is read into memory.
pub const ANSWER_MAX: u64 = 64 << 20;

/// Our own code for a server whose certificate is not believed.
const CERTIFICATE: &str = "CertificateNotTrusted";

/// Limits of retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Longest outage of a service that has answered before.
    pub patience: Duration,
    /// Longest wait for a service that has never answered.
    pub patience_first: Duration,
    /// Without a byte for so long, a try has failed.
    pub stall: Duration,
    /// First pause; each is twice the one before.
    pub pause: Duration,
    /// Longest pause of our own.
    pub pause_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            // An outage of an hour, and the longest pause twice.
            patience: Duration::from_secs(90 * 60),
            patience_first: Duration::from_secs(20),
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
        }
    }
}

/// A request without a successful answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status; `None` when no answer came.
    pub status: Option<u16>,
    /// The service's own code, such as `BlobNotFound`.
    pub code: String,
    /// In words.
    pub message: String,
    /// Method and place; no query, which may be signed.
    pub request: String,
    /// It was asked to stop.
    pub is_stopped: bool,
    /// Number of tries before this one, of whose effect nothing is known: the service may have done what they asked for.
    pub earlier: u32,
}

impl Failure {
    pub(crate) fn unanswered(request: &str, message: impl Into<String>) -> Self {
        let (request, message) = (request.to_owned(), message.into());
        Self { status: None, code: String::new(), message, request, is_stopped: false, earlier: 0 }
    }

    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        !self.is_stopped
            && match self.status {
                // A certificate that is not believed is not believed later either.
                None => self.code != CERTIFICATE,
                Some(status) => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            }
    }

    /// Neither blob nor container is there.
    pub fn is_missing(&self) -> bool {
        self.status == Some(404)
    }

    /// The blob is not as the condition wants it.
    pub fn is_condition(&self) -> bool {
        matches!(self.status, Some(412 | 304)) || self.status == Some(409) && self.code == "BlobAlreadyExists"
    }

    /// The credential does not do.
    pub fn is_denied(&self) -> bool {
        matches!(self.status, Some(401 | 403))
    }

    /// The failure as a problem, with advice.
    pub fn problem(&self) -> Problem {
        if self.is_stopped {
            return Problem::new(Kind::Interrupted, "stopped while waiting for the service")
                .value(self.request.clone());
        }
        let said = match (self.code.is_empty(), self.message.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(": {}", self.code),
            (true, false) => format!(": {}", self.message),
            (false, false) => format!(": {}: {}", self.code, self.message),
        };
        let (kind, what) = match self.status {
            None => (Kind::Environment, format!("the service was not reached{said}")),
            Some(status) => (Kind::Refused, format!("the service refused (HTTP {status}){said}")),
        };
        let advice = match self.status {
            None if self.code == CERTIFICATE => {
                Advice::from("name the certificates to believe with ")
                    + Setting::CaFile
                    + ": a proxy of your company may have its own"
            }
            None => {
                Advice::from("check address, network and proxy; ")
                    + Setting::RetryFor
                    + " says how long an outage is waited for"
            }
            Some(status) => remedy(status, &self.code).into(),
        };
        Problem::new(kind, what).value(self.request.clone()).advice(advice)
    }
}

/// What helps against a refusal.
fn remedy(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (400, "AuthenticationFailed" | "InvalidAuthenticationInfo") | (401 | 403, "AuthenticationFailed") => {
            "check that key or signature are of this account, and this machine's clock"
        }
        (401 | 403, "AuthorizationPermissionMismatch" | "AuthorizationFailure") => {
            "the identity may sign in, but not read: it needs the role Storage Blob Data Reader, or the firewall of \
             the account keeps this machine out"
        }
        (401 | 403, _) => "check what key, signature or identity may do: read and list are needed",
        (404, "ContainerNotFound") => "check the account and the container's name",
        (404, _) => "check account, container and name",
        (408 | 429 | 500..=599, _) => "try again later: the request was repeated until the time for retries was over",
        (300..=399, _) => "the answer points elsewhere, where credentials do not go: name that address",
        _ => "mend what the service names",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem())
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        failure.problem()
    }
}

/// A request, but for what signs it. Its query travels in [`Request::uri`] only.
pub struct Request<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// URL, query and signature included.
    pub uri: zeroize::Zeroizing<String>,
    /// Name in messages: method and place.
    pub name: &'a str,
    /// All headers.
    pub headers: Vec<(String, zeroize::Zeroizing<String>)>,
    /// Body; `None` for methods without one.
    pub body: Option<&'a [u8]>,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An answer whose body was not read yet.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    body: ureq::Body,
    name: String,
}

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All of the body.
    ///
    /// # Errors
    /// When it breaks off, or is longer than `len_max`.
    pub fn bytes(&mut self, len_max: u64) -> Result<Vec<u8>, Failure> {
        let read = self.body.with_config().limit(len_max).read_to_vec();
        read.map_err(|error| Failure::unanswered(&self.name, format!("the answer could not be read: {error}")))
    }

    /// Fills `out`; an answer of another length is an error.
    ///
    /// # Errors
    /// When it breaks off, or goes on.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), Failure> {
        let failed = |what: String| Failure::unanswered(&self.name, what);
        let mut reader = self.body.with_config().limit(out.len() as u64 + 1).reader();
        let mut at = 0;
        while at < out.len() {
            match reader.read(&mut out[at..]) {
                Ok(0) => return Err(failed(format!("the answer ends after {at} of {} bytes", out.len()))),
                Ok(len) => at += len,
                Err(error) => return Err(failed(format!("the answer broke off after {at} bytes: {error}"))),
            }
        }
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(failed(format!("the answer continues after {} bytes", out.len()))),
            Err(error) => Err(failed(format!("the answer broke off at its end: {error}"))),
        }
    }
}

/// Time by which outages are waited for.
#[derive(Clone, Debug, Default)]
enum Clock {
    /// The machine's.
    #[default]
    Real,
    /// A test's: whoever waits moves it.
    #[cfg(test)]
    Virtual(Arc<std::sync::Mutex<Duration>>),
}

impl Clock {
    /// Time since `start`, which [`Self::start`] gave.
    fn since(&self, start: (Instant, Duration)) -> Duration {
        match self {
            Self::Real => start.0.elapsed(),
            #[cfg(test)]
            Self::Virtual(now) => *now.lock().expect("a clock") - start.1,
        }
    }

    fn start(&self) -> (Instant, Duration) {
        match self {
            Self::Real => (Instant::now(), Duration::ZERO),
            #[cfg(test)]
            Self::Virtual(now) => (Instant::now(), *now.lock().expect("a clock")),
        }
    }

    fn sleep(&self, wait: Duration) {
        match self {
            Self::Real => std::thread::sleep(wait),
            #[cfg(test)]
            Self::Virtual(now) => *now.lock().expect("a clock") += wait,
        }
    }
}

/// The program's HTTP client.
#[derive(Clone, Debug)]
pub struct Http {
    agent: ureq::Agent,
    names: Names,
    /// Limits of retrying.
    pub policy: Policy,
    stop: Option<Stop>,
    clock: Clock,
    has_answered: Arc<AtomicBool>,
    /// An answer came while a body was being sent, and was lost with the connection.
    is_careful: Arc<AtomicBool>,
}

impl Http {
    /// For requests to `endpoint`; `ca_file` holds the certificates that are believed in place of the usual ones.
    ///
    /// # Errors
    /// When there are no certificates.
    pub fn new(endpoint: &Endpoint, ca_file: Option<&Path>, policy: Policy) -> Result<Self, Problem> {
        let mut agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A credential must not reach another host by a redirect.
            .max_redirects(0)
            .timeout_connect(Some(policy.stall.min(Duration::from_secs(30))))
            .timeout_resolve(Some(policy.stall.min(Duration::from_secs(30))))
            .timeout_per_read(Some(policy.stall))
            .timeout_per_write(Some(policy.stall))
            .max_idle_connections(256)
            .max_idle_connections_per_host(256)
            .user_agent(concat!("dray/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots(ca_file)?).build());
        if !endpoint.is_tls() {
            // A proxy would be another machine.
            agent = agent.proxy(None);
        }
        let names = Names::default();
        let connector = ureq::unversioned::transport::DefaultConnector::default();
        Ok(Self {
            agent: ureq::Agent::with_parts(agent.build(), connector, names.clone()),
            names,
            policy,
            stop: None,
            clock: Clock::Real,
            has_answered: Arc::default(),
            is_careful: Arc::default(),
        })
    }

    /// Waits no longer once `stop` is asked.
    #[must_use]
    pub fn until(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::requested)
    }

    /// Sends once; any status is an answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn once(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let mut builder = ureq::http::Request::builder().method(request.method).uri(request.uri.as_str());
        for (name, value) in &request.headers {
            builder = builder.header(name.as_str(), value.as_str());
        }
        if request.body.is_some_and(|body| !body.is_empty()) && self.is_careful.load(Ordering::Relaxed) {
            builder = builder.header("Expect", "100-continue");
        }
        let sent = match request.body {
            Some(body) => builder.body(body).map_err(ureq::Error::from).and_then(|one| self.agent.run(one)),
            None => builder.body(()).map_err(ureq::Error::from).and_then(|one| self.agent.run(one)),
        };
        match sent {
            Ok(answer) => {
                self.has_answered.store(true, Ordering::Relaxed);
                let status = answer.status().as_u16();
                let (parts, body) = answer.into_parts();
                Ok(Answer { status, headers: parts.headers, body, name: request.name.to_owned() })
            }
            Err(error) => {
                self.names.forget();
                // What a server says while a body is still on its way is lost with the connection: ask first from now on.
                if request.body.is_some_and(|body| !body.is_empty()) {
                    self.is_careful.store(true, Ordering::Relaxed);
                }
                let is_certificate = match &error {
                    ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => true,
                    ureq::Error::Io(error) => {
                        error.kind() == std::io::ErrorKind::InvalidData && error.to_string().contains("certificate")
                    }
                    _ => false,
                };
                // Never the address: its query may be a signature.
                let said = match &error {
                    ureq::Error::Http(_) | ureq::Error::BadUri(_) => "the request cannot be said in HTTP".to_owned(),
                    ureq::Error::HostNotFound => "the host's name is not known".to_owned(),
                    ureq::Error::Timeout(which) => format!("no byte for {} s ({which})", self.policy.stall.as_secs()),
                    other => other.to_string(),
                };
                let failure = Failure::unanswered(request.name, said);
                let code = if is_certificate { CERTIFICATE.to_owned() } else { String::new() };
                Err(Failure { code, ..failure })
            }
        }
    }

    /// Tries until `work` gives an answer that is not transient. `work` signs anew for each try, since signatures hold the
    /// time; what it reads of an answer is part of the try.
    ///
    /// # Errors
    /// The last failure, when it is final or patience is over.
    pub fn persist<T>(
        &self,
        mut work: impl FnMut(u32) -> Result<T, (Failure, Option<Duration>)>,
    ) -> Result<T, Failure> {
        let started = self.clock.start();
        let mut pause = self.policy.pause;
        let mut tries = 0;
        loop {
            if self.is_stopped() {
                let failure = Failure::unanswered("", "stopped");
                return Err(Failure { is_stopped: true, earlier: tries, ..failure });
            }
            let (failure, asked) = match work(tries) {
                Ok(out) => return Ok(out),
                Err(both) => both,
            };
            tries += 1;
            let has_answered = self.has_answered.load(Ordering::Relaxed);
            let patience = if has_answered { self.policy.patience } else { self.policy.patience_first };
            // Half of it is chance, so that threads do not come back together.
            let spread = pause.mul_f64(0.5 + 0.5 * chance());
            let wait = asked.unwrap_or(spread);
            if !failure.is_transient() || self.clock.since(started) + wait > patience {
                return Err(Failure { earlier: tries - 1, ..failure });
            }
            self.sleep(wait);
            pause = (pause * 2).min(self.policy.pause_max);
        }
    }

    /// Waits, unless it is to stop.
    pub fn sleep(&self, wait: Duration) {
        let start = self.clock.start();
        while !self.is_stopped() {
            let left = wait.saturating_sub(self.clock.since(start));
            if left.is_zero() {
                break;
            }
            self.clock.sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// Duration of `Retry-After`, given in seconds or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            u64::try_from(at.as_second() - jiff::Timestamp::now().as_second()).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(3600)))
}

/// Between 0 and 1, by no means secret.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_help_is_tried_again() {
        let policy = Policy {
            patience: Duration::from_secs(5),
            patience_first: Duration::from_millis(400),
            pause: Duration::from_millis(1),
            pause_max: Duration::from_millis(4),
            ..Policy::default()
        };
        let endpoint = Endpoint::parse("http://127.0.0.1:1", "--endpoint", "").expect("this machine");
        let http = Http::new(&endpoint, None, policy).expect("a client");
        let mut tries = 0;
        let failure = http.persist(|_| -> Result<(), _> {
            tries += 1;
            Err((Failure { status: Some(403), ..Failure::unanswered("GET /", "") }, None))
        });
        assert_eq!((failure.expect_err("denied").status, tries), (Some(403), 1));
        let answer = http.persist(|tries| {
            if tries < 3 {
                Err((Failure { status: Some(503), ..Failure::unanswered("GET /", "") }, None))
            } else {
                Ok(tries)
            }
        });
        assert_eq!(answer, Ok(3));
        // An endpoint that never answered is given up soon, and one that asks for more time than there is at once.
        let started = Instant::now();
        assert!(http.persist(|_| -> Result<(), _> { Err((Failure::unanswered("GET /", ""), None)) }).is_err());
        assert!(started.elapsed() < Duration::from_secs(2));
        let wait = Some(Duration::from_secs(60));
        assert!(http.persist(|_| -> Result<(), _> { Err((Failure::unanswered("GET /", ""), wait)) }).is_err());
        assert!(started.elapsed() < Duration::from_secs(2));
        let stop = Stop::new();
        stop.request();
        let stopped = http.until(stop).persist(|_| Ok(()));
        assert!(stopped.expect_err("stopped").is_stopped);
    }

    #[test]
    fn an_outage_of_an_hour_is_waited_for_and_one_of_two_is_not() {
        let endpoint = Endpoint::parse("http://127.0.0.1:1", "--endpoint", "").expect("this machine");
        for (minutes, is_reached) in [(60, true), (85, true), (120, false)] {
            let now = Arc::new(std::sync::Mutex::new(Duration::from_secs(7)));
            let mut http = Http::new(&endpoint, None, Policy::default()).expect("a client");
            http.clock = Clock::Virtual(Arc::clone(&now));
            http.has_answered.store(true, Ordering::Relaxed);
            let back = *now.lock().expect("a clock") + Duration::from_secs(60 * minutes);
            let mut tries = 0;
            let answer = http.persist(|_| {
                tries += 1;
                if *now.lock().expect("a clock") >= back {
                    return Ok(());
                }
                // What a try takes that no byte answers.
                *now.lock().expect("a clock") += http.policy.stall;
                Err((Failure::unanswered("PUT /", "no byte"), None))
            });
            assert_eq!(answer.is_ok(), is_reached, "{minutes} minutes");
            assert!((20..200).contains(&tries), "{tries} tries in {minutes} minutes");
        }
        // One that never answered is not waited for.
        let now = Arc::new(std::sync::Mutex::new(Duration::ZERO));
        let mut http = Http::new(&endpoint, None, Policy::default()).expect("a client");
        http.clock = Clock::Virtual(Arc::clone(&now));
        assert!(http.persist(|_| -> Result<(), _> { Err((Failure::unanswered("PUT /", ""), None)) }).is_err());
        assert!(*now.lock().expect("a clock") <= http.policy.patience_first);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().expect("a value"));
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Fri, 26 Jun 2015 23:39:12 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
        assert_eq!(of("999999"), Some(Duration::from_secs(3600)));
    }
}
