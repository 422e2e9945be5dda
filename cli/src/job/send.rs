//! Requests to the service. The token and the keys of a body are never printed, and never sent where they can be read.

use std::fs::{self, File};
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dray_engine::report::{Kind, Problem};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use url::Url;
use zeroize::Zeroizing;

use super::Api;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 4 << 20;
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Longest file of certificates that is read.
const CERTIFICATES_MAX: u64 = 16 << 20;

/// Endpoint and credentials of the service.
pub struct Service {
    endpoint: Url,
    token: Zeroizing<String>,
    agent: ureq::Agent,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("endpoint", &self.endpoint.as_str())
            .field("token", &"<secret>")
            .finish_non_exhaustive()
    }
}

/// The endpoint, if token and keys may go there: `https`, or `http` to this machine's own addresses.
///
/// # Errors
/// The reason the endpoint is refused.
fn endpoint(text: &str) -> Result<Url, Problem> {
    let usage = |what: &str, advice: &str| {
        let shown: String = text.chars().flat_map(char::escape_default).take(200).collect();
        // The part before an @ may be a password.
        let shown = shown.rsplit_once('@').map_or(shown.clone(), |(_, host)| format!("…@{host}"));
        Problem::new(Kind::Usage, what).column("--endpoint").value(shown).advice(advice.to_owned())
    };
    let example = "for example https://management.azure.com";
    // Parsers pass over some of these, each its own.
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(usage("holds blanks, control characters or backslashes", example));
    }
    let url = Url::parse(text).map_err(|error| usage(&format!("is no address: {error}"), example))?;
    let scheme = url.scheme();
    if !matches!(scheme, "http" | "https") {
        return Err(usage("is neither https nor http", example));
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err(usage("holds a user name (before an @): requests would go to the host behind it", example));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("holds more than scheme, host and path", example));
    }
    if scheme == "https" {
        return Ok(url);
    }
    let plain = "use https:// (http:// only to 127.0.0.1, [::1] or localhost)";
    let is_here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain("localhost")) => {
            let found = ("localhost", url.port_or_known_default().unwrap_or(80)).to_socket_addrs();
            found.is_ok_and(|mut found| found.all(|address| address.ip().is_loopback()))
        }
        _ => false,
    };
    if !is_here {
        return Err(usage("would carry token and keys in the clear", plain));
    }
    // 0x7f.1 and 2130706433 are this machine, but not visibly so.
    let host = url.host_str().unwrap_or_default();
    let written = text.get("http://".len()..).unwrap_or_default();
    let end = written.find([':', '/']).filter(|_| !written.starts_with('[')).unwrap_or(written.len());
    let end = if written.starts_with('[') { written.find(']').map_or(end, |end| end + 1) } else { end };
    if !written.get(..end).is_some_and(|typed| typed.eq_ignore_ascii_case(host)) {
        return Err(usage(&format!("is {host}, written in another way"), plain));
    }
    Ok(url)
}

/// Trusted certificates: those of `--ca-file`, of `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else the system's.
fn roots(ca_file: Option<&Path>) -> Result<RootCerts, Problem> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut files: Vec<(PathBuf, &str)> = Vec::new();
    match ca_file {
        Some(path) => files.push((path.to_owned(), "--ca-file")),
        None => {
            files.extend(variable("SSL_CERT_FILE").map(|path| (path, "SSL_CERT_FILE")));
            if let Some(dir) = variable("SSL_CERT_DIR") {
                let entries = fs::read_dir(&dir).map_err(|error| {
                    let problem = Problem::new(Kind::Usage, format!("the certificates cannot be read: {error}"));
                    problem.path(&dir).column("SSL_CERT_DIR")
                })?;
                let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
                files.extend(paths.map(|path| (path, "SSL_CERT_DIR")));
            }
        }
    }
    if files.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    let mut all = Vec::new();
    for (path, from) in &files {
        let problem = |what: String| {
            let problem = Problem::new(Kind::Usage, what).path(path).column(*from);
            problem.advice("name a file of certificates in PEM form, such as /etc/ssl/certs/ca-certificates.crt")
        };
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(CERTIFICATES_MAX).read_to_end(&mut bytes));
        read.map_err(|error| problem(format!("the certificates cannot be read: {error}")))?;
        let before = all.len();
        all.extend(parse_pem(&bytes).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
        if all.len() == before && *from != "SSL_CERT_DIR" {
            return Err(problem("holds no certificate".into()));
        }
    }
    Ok(RootCerts::from(all))
}

impl Service {
    /// A client for `endpoint`; certificates in `ca_file` are trusted in place of the system's.
    ///
    /// # Errors
    /// The token would travel in the clear or is malformed; there are no certificates.
    pub fn new(endpoint_text: &str, ca_file: Option<&Path>, token: Zeroizing<String>) -> Result<Self, Problem> {
        let endpoint = endpoint(endpoint_text)?;
        let good = |b: u8| b.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(good) {
            return Err(Problem::new(Kind::Usage, "the bearer token is empty or has blanks in it")
                .advice("`az account get-access-token --query accessToken -o tsv > FILE`, then --token-file FILE"));
        }
        let is_tls = endpoint.scheme() == "https";
        let mut agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The token must not reach another host by a redirect.
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .user_agent(concat!("dray/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots(ca_file)?).build());
        if !is_tls {
            // A proxy would be another machine.
            agent = agent.proxy(None);
        }
        Ok(Self { endpoint, token, agent: agent.build().into() })
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
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{path}", self.endpoint.path().trim_end_matches('/')));
        url.query_pairs_mut().append_pair("api-version", version);
        Ok(url)
    }

    /// Sends a request; gives the answer, `Null` when it has no body.
    ///
    /// # Errors
    /// The service does not answer, or refuses: with its own code and message.
    pub fn call(&self, api: Api, method: &str, path: &str, body: Option<&str>) -> Result<Value, Problem> {
        let url = self.address(path, api.version())?;
        let failed = |what: String| {
            Problem::new(Kind::Environment, what)
                .value(format!("{method} {}{path}", self.endpoint.as_str().trim_end_matches('/')))
                .advice("nothing is known of what the service did: `dray job show FILE --submit` asks it")
        };
        let bearer = Zeroizing::new(format!("Bearer {}", *self.token));
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url.as_str())
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
        let reported =
            |key: &str| value["error"][key].as_str().unwrap_or_default().chars().take(400).collect::<String>();
        let (code, message) = (reported("code"), reported("message"));
        let said = if code.is_empty() && message.is_empty() { String::new() } else { format!(": {code}: {message}") };
        let advice = match status {
            300..=399 => {
                "the answer points elsewhere, where token and keys do not go: name that address with --endpoint"
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_keys_go_by_tls_or_to_this_machine() {
        for good in [
            "https://management.azure.com",
            "https://management.azure.com/",
            "https://management.usgovcloudapi.net:443/base",
            "HTTPS://Management.Azure.com",
            "http://127.0.0.1:8080",
            "http://127.0.0.2",
            "http://[::1]:80/",
            "http://localhost:1",
        ] {
            assert!(endpoint(good).is_ok(), "{good}: {:?}", endpoint(good));
        }
        for bad in [
            "http://127.0.0.1:80@evil.com",
            "http://127.0.0.1@evil.com/",
            "http://localhost:x@evil.com",
            "https://management.azure.com@evil.com",
            "https://@evil.com",
            "https://user:secret@management.azure.com",
            "http://management.azure.com",
            "http://localhost.evil.com",
            "http://127.0.0.1.nip.io",
            "http://127.0.0.1.",
            "http://[::ffff:8.8.8.8]",
            "http://[::ffff:127.0.0.1]",
            "http://[::]",
            "http://0.0.0.0",
            "http://0",
            "http://0x7f.1",
            "http://2130706433",
            "http://127.1",
            "http://127.0.0.1\\@evil.com",
            "http://127.0.0.1\t.evil.com",
            "http://127.0.0.1\n",
            " https://management.azure.com",
            "http:127.0.0.1",
            "http:\\\\127.0.0.1",
            "https://",
            "https:///",
            "//management.azure.com",
            "management.azure.com",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "https://management.azure.com?x=",
            "https://management.azure.com#x",
            "http://127.0.0.1#@evil.com",
            "http://evil.com#@127.0.0.1",
            "http://evil.com?127.0.0.1",
            "",
        ] {
            let problem = endpoint(bad).map(|url| url.to_string()).expect_err(bad);
            assert_eq!(problem.kind, Kind::Usage, "{bad}");
            assert!(!problem.value.unwrap_or_default().contains("secret"), "{bad}");
        }
    }

    #[test]
    fn a_path_never_changes_the_host() {
        let service = |base| Service::new(base, None, Zeroizing::new("t".into())).expect("a service");
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
